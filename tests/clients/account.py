"""What belongs to one account of one upstream: its prompt cache, its stored objects and the seals on its reasoning."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections import Counter
from typing import Any

BLOCK_TOKENS = 128
BYTES_PER_TOKEN = 4
"""Roughly what English takes in the tokenizers of both OpenAI and Anthropic."""


class PromptCache:
    """The blocks of prompts that a server has computed, by the hash of the prompt up to each block's end.

    `counted` has the turns that wrote to it: how many, and their tokens of input and from the cache.
    """

    def __init__(self) -> None:
        self._prefixes: set[bytes] = set()
        self.counted: Counter[str] = Counter()

    def read(self, model: str, prompt: Any, *, write: bool = True) -> tuple[int, int, int]:
        """Return how many tokens the prompt has, how many of them were cached, and how many are newly written."""
        text = json.dumps(prompt, ensure_ascii=False, separators=(",", ":")).encode()
        size = BLOCK_TOKENS * BYTES_PER_TOKEN
        prefixes = []
        rolling = hashlib.sha256(model.encode())
        for start in range(0, len(text) - size + 1, size):
            rolling.update(text[start : start + size])
            prefixes.append(rolling.digest())
        cached = next((at for at, prefix in enumerate(prefixes) if prefix not in self._prefixes), len(prefixes))
        if write:
            self._prefixes.update(prefixes)
        total = -(-len(text) // BYTES_PER_TOKEN)
        if write:
            self.counted.update(turns=1, input=total, read=cached * BLOCK_TOKENS)
        return total, cached * BLOCK_TOKENS, (len(prefixes) - cached) * BLOCK_TOKENS if write else 0


class Account:
    """One upstream's account. Its answers contain `name`; only it can decrypt what it has encrypted."""

    def __init__(self, name: str, models: tuple[str, ...]) -> None:
        self.name = name
        self.models = models
        self.cache = PromptCache()
        self.responses: dict[str, dict[str, Any]] = {}
        self.conversations: dict[str, dict[str, Any]] = {}

    def answer(self, model: str) -> str:
        """Return the text of every answer."""
        return f"{self.name} as {model}"

    def seal(self) -> str:
        """Return a token as opaque as encrypted reasoning or the signature of a thinking block."""
        nonce = secrets.token_bytes(24)
        return base64.urlsafe_b64encode(b"\x80\x00\x00\x00" + nonce + self._mac(nonce)).decode()

    def has_sealed(self, token: object) -> bool:
        """Return whether `token` is from `seal` of this account."""
        try:
            raw = base64.urlsafe_b64decode(str(token))
        except ValueError:
            return False
        return hmac.compare_digest(raw[28:], self._mac(raw[4:28]))

    def _mac(self, nonce: bytes) -> bytes:
        return hmac.digest(self.name.encode(), nonce, "sha256")


def new_id(prefix: str) -> str:
    """Return an id in the form of OpenAI's and Anthropic's."""
    return f"{prefix}_{secrets.token_hex(24)}"
