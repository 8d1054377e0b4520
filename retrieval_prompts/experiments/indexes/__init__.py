"""Index types measured against exact search, and what each costs."""
