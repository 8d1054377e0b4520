"""What holds prompts near the frozen model on general texts."""
