"""What is RKLLM's own: its servers, and the rules that tell an answer from a failure."""
