"""Prompt folders given away: the hub, and the card that goes with them."""
