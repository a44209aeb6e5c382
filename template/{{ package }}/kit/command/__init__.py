"""The plugin's command: a face of the engine that needs no exo."""
