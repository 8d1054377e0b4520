"""How prompts are learned."""
