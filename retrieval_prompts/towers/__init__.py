"""What stays frozen: a text tower, and where prompts enter it."""
