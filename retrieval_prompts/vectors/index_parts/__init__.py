"""Parts of an index folder."""
