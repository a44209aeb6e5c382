"""The Llama family from safetensors files, in NumPy."""
