"""Demo credentials; `manage.py run --demo` creates and prints them."""

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
    """The content of the file; `admin_password` is None if it was changed."""

    api_key: str = ""
    admin_password: str | None = None


def is_in_use(path: Path) -> bool:
    """Return whether the database has users or API keys other than those of the demo in `path`."""
    users, kept = get_user_model().objects.all(), _read(path)
    if kept.api_key:
        users = users.exclude(username=ADMIN)
    return users.exists() or ApiKey.objects.exclude(owner=OWNER).exists()


def ensure_credentials(path: Path) -> Credentials:
    """Return working credentials: those stored in `path`, and new ones for those that no longer work.

    Never changes the password of an existing user.
    """
    kept = _read(path)
    with transaction.atomic():
        usable = Credentials(api_key=kept.api_key, admin_password=_admin_password(kept.admin_password))
        if not ApiKey.objects.is_live(usable.api_key):
            usable.api_key = ApiKey.objects.issue(OWNER)
        if usable != kept:
            _write(path, usable)  # before the commit: a crash must not leave an admin with an unknown password
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
