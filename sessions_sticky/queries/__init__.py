"""What operators do: look at many sessions, move and delete them, mend the index; and the manager's methods for it."""
