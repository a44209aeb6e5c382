"""One engine over any device: loads it, steps it, answers with it."""
