"""What a model's repository says, and where its files are."""
