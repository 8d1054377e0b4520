"""Whole experiments, with results that have types."""
