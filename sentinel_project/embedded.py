"""The embedded store (stub, being written)."""

from __future__ import annotations

from pathlib import Path


def url(folder: Path) -> str:
    """Return the URL of this project's embedded server, running or not."""
    return f"unix://{folder / 'valkey.sock'}"
