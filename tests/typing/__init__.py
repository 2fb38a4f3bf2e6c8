"""Another project, checked by type checkers."""
