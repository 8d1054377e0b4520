"""What is computed once: features of pictures and texts."""
