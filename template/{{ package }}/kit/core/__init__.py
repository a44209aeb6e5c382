"""One engine over any device: knows neither exo nor a device."""
