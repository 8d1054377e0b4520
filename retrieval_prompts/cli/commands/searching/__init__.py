"""Commands that make an index and search it."""
