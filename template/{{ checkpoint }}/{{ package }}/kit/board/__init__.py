"""The operations board: each operation of a device beside the reference's, over many cases."""
