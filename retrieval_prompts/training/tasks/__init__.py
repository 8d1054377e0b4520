"""What else prompts are trained on beside queries and documents: labelled texts, and texts to be written."""
