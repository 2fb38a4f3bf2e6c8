"""Django's SECRET_KEY, without one in the repository."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path


def secret_key(folder: Path) -> str:
    """Return `SECRET_KEY` from the environment, else the one kept in `folder`, made at the first start.

    The kept one starts with `django-insecure-`, by which `check --deploy` asks for a real one. Safe when several
    workers start at once: all get the same.
    """
    if key := os.environ.get("SECRET_KEY"):
        return key
    path = folder / "secret_key"
    draft = folder / f"secret_key.{secrets.token_hex(8)}"  # containers that share the folder share process ids too
    if not path.exists():
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"django-insecure-{secrets.token_urlsafe(50)}")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another worker was first
        finally:
            draft.unlink()
    return path.read_text()


def read_key(text: str) -> bytes:
    """Return a key's bytes. Raises `ValueError` for a blank one, with which any caller could compute the HMACs."""
    if not text.strip():
        raise ValueError
    return text.encode()


def derived_key(secret: str, purpose: str) -> bytes:
    """Return a key derived for one purpose."""
    return hmac.digest(secret.encode(), purpose.encode(), "sha256")
