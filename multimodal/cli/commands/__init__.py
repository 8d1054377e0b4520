"""The commands of multimodal-prompts, one a file: each declares its options and prints; the work is done elsewhere."""
