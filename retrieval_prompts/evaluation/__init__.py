"""Runs and judgements in, figures and words out."""
