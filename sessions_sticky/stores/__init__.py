"""Where sessions are kept: the stores, their index and history, and what this process remembers."""
