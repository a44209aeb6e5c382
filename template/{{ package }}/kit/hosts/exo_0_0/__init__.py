"""exo 0.0, which finds a plugin by its entry points (jfreed-dev/exo-rkllama, commit 0c831d3)."""
