"""Stand-in package: see exo/__init__.py."""
