"""Commands on prompt folders themselves: what is in them, what they do, and several made into one."""
