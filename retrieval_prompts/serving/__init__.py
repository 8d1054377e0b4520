"""What a server holds: one frozen model, and the prompts of many over it."""
