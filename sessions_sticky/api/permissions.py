"""Django's permissions on the unmanaged model `sessions_sticky.Session`."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

NEEDED = {"GET": "view", "HEAD": "view", "OPTIONS": "view", "DELETE": "delete"}
"""The permission of each method; other methods need the view's `permission`."""


class SessionPermission(BasePermission):
    """Require the permissions `view_`, `add_`, `change_` and `delete_session`.

    Unlike DRF's `DjangoModelPermissions`, reading needs a permission too. Methods that the route does not
    support need one as well, so that users without permissions learn nothing. `message` names what is missing.
    """

    message = ""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the user has the permission for this method."""
        action: str = NEEDED.get(str(request.method), getattr(view, "permission", "change"))
        self.message = f"Requires the permission sessions_sticky.{action}_session."
        return bool(request.user and request.user.is_authenticated and has_permission(request.user, action))


def has_permission(user: Any, action: str) -> bool:
    """Return whether a user may `view`, `add`, `change` or `delete` sessions."""
    return bool(user.has_perm(f"sessions_sticky.{action}_session"))
