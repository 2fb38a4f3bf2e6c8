"""Answers of the echo provider, one module for each API: its name, the model and the prompt."""
