"""Pages about image experiments."""
