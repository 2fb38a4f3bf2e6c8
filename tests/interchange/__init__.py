"""docs/interchange.md, as a program in another language and its test vectors have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("sessions.mjs")
VECTORS = Path(__file__).parents[2] / "docs" / "vectors.json"


def vectors(family: str) -> list[dict[str, Any]]:
    """Return the test vectors of one family."""
    found: list[dict[str, Any]] = json.loads(VECTORS.read_text())[family]
    return found


def in_bytes(vector: dict[str, Any]) -> bytes:
    """Return the stored value that a vector means."""
    return bytes.fromhex(vector["hex"]) if "hex" in vector else vector["json"].encode()
