"""Credentials for a first try on one's own machine; `manage.py run --demo` makes and shows them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec
from django.contrib.auth import get_user_model
from django.db import transaction

from sentinel_project.gateway.models import ApiKey

OWNER = "demo"
ADMIN = "admin"


class Credentials(msgspec.Struct, kw_only=True):
    """What the file keeps; `admin_password` None: an admin has changed it, and it is not known."""

    api_key: str = ""
    admin_password: str | None = None


def is_in_use(path: Path) -> bool:
    """Return whether the database has users or API keys that no demo made; `path` is where the demo's are kept."""
    users, kept = get_user_model().objects.all(), _read(path)
    if kept.api_key:
        users = users.exclude(username=ADMIN)
    return users.exists() or ApiKey.objects.exclude(owner=OWNER).exists()


def ensure_credentials(path: Path) -> Credentials:
    """Return credentials that work: those kept in `path`, and new ones for what no longer does.

    Never changes the password of a user that exists.
    """
    kept = _read(path)
    with transaction.atomic():
        usable = Credentials(api_key=kept.api_key, admin_password=_admin_password(kept.admin_password))
        if not ApiKey.objects.is_live(usable.api_key):
            usable.api_key = ApiKey.objects.issue(OWNER)
        if usable != kept:
            _write(path, usable)  # before the commit: a crash must not leave an admin whose password nobody knows
    return usable


def _admin_password(kept: str | None) -> str | None:
    users = get_user_model().objects
    if admin := users.filter(username=ADMIN).first():
        return kept if kept and admin.is_active and admin.is_superuser and admin.check_password(kept) else None
    password = secrets.token_urlsafe(12)
    users.create_superuser(ADMIN, password=password)
    return password


def _read(path: Path) -> Credentials:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Credentials)
    except (FileNotFoundError, msgspec.DecodeError):
        return Credentials()


def _write(path: Path, credentials: Credentials) -> None:
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.encode(credentials))
    draft.replace(path)
