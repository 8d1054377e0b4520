"""CLIP with prompts behind other tools' interfaces."""
