"""Scores of classification and image-text retrieval."""
