"""exo 0.3, which has no place for plugins: the plugin's command starts it with the engine in it."""
