"""What one would try instead of soft prompts, trained on the same pairs: a linear map, LoRA, NUDGE; and rank fusion."""
