"""Faces of the engine, one for each exo."""
