"""A project of somebody else's, as type checkers see it."""
