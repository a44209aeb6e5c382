"""Between text and token ids, and what models write between them."""
