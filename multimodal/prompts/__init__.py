"""What is learned: contexts, and the methods of the papers."""
