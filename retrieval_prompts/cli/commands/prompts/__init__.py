"""Commands on prompt folders themselves."""
