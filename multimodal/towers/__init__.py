"""What stays frozen: an open_clip model, its text tower and its image tower."""
