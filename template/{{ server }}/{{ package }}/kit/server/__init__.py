"""What every variant with a server shares: HTTP, settings, the choice of its model."""
