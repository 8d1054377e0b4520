"""Whole experiments on classes and captions."""
