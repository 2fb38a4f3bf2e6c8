"""Who may do what: Django's permissions on the unmanaged model `sessions_sticky.Session`."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

NEEDED = {"GET": "view", "HEAD": "view", "OPTIONS": "view", "DELETE": "delete"}
"""The permission that a method needs; for any other the view's `permission` says."""


class SessionPermission(BasePermission):
    """Let a user do what the permissions `view_`, `add_`, `change_` and `delete_session` say.

    Unlike DRF's `DjangoModelPermissions`, reading needs a permission too. A method that the route does not have
    needs one as well: who may do nothing learns nothing.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Tell whether the user has the permission for this method."""
        action: str = NEEDED.get(str(request.method), getattr(view, "permission", "change"))
        return bool(request.user and request.user.is_authenticated and has_permission(request.user, action))


def has_permission(user: Any, action: str) -> bool:
    """Tell whether a user may `view`, `add`, `change` or `delete` sessions."""
    return bool(user.has_perm(f"sessions_sticky.{action}_session"))
