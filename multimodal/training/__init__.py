"""How prompts for CLIP are learned."""
