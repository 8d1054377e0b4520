"""The commands of retrieval-prompts, one a file: each declares its options and prints; the work is done elsewhere."""
