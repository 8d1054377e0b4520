"""Commands for what is kept, converted and given away: exports, folders, a hub."""
