"""What is kept of an experiment: its file, how long its parts took, where it comes from."""
