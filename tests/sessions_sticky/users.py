"""Users with permissions on sessions."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission, User


def make_user(name: str, *actions: str, **flags: Any) -> User:
    """Make a user with the given permissions on sessions: `"view"`, `"add"`, `"change"`, `"delete"`."""
    user = User.objects.create_user(name, **flags)
    if actions:
        names = [f"{action}_session" for action in actions]
        app = {"content_type__app_label": "sessions_sticky"}
        user.user_permissions.set(Permission.objects.filter(codename__in=names, **app))
    return user
