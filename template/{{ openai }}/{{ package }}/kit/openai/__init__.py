"""What is an OpenAI-compatible server's own: its dialects, and how its model is spoken to."""
