"""Which prompts, strength and weight to use: chosen by queries that were set aside, and said in a sentence."""
