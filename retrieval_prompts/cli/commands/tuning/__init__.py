"""Commands that train prompts and judge them."""
