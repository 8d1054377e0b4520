"""Commands on prompt folders themselves: what is in them, and what they do."""
