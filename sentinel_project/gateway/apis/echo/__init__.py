"""The answers of the echo provider, one module for each API: who answers, as which model, and what it was sent."""
