"""What is computed once: vectors of texts, and indexes of them."""
