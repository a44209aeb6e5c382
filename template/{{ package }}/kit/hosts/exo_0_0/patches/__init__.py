"""Faults of exo 0.0 around its calls of an engine, patched in memory."""
