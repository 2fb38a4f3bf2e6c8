"""The kinds of users of the permission matrix, and all the calls that each of them makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.faults.permission_table import METHODS, SAFE, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY = ("view", "add", "change", "delete")
STAFF = {"is_staff": True}
WITH_CSRF, WITHOUT_CSRF, BY_TOKEN = "logged in, with CSRF token", "logged in, without", "by token"


class Role(NamedTuple):
    """A kind of user: what they may do, on all models, on those of sessions alone, or on the rest."""

    actions: tuple[str, ...] = ()
    flags: dict[str, bool] = {}
    models: str = "all"

    def covers(self, model: str) -> bool:
        return self.models == "all" or (model == "session") is (self.models == "session")

    def may(self, needs: str, model: str) -> bool:
        actions = self.actions if self.covers(model) else ()
        has = {"-", *(EVERY if self.flags.get("is_superuser") else actions)}
        return any(set(each.split("+")) <= has for each in needs.split("|"))

    @property
    def is_active(self) -> bool:
        return self.flags.get("is_active", True)


ROLES = {
    "user": Role(),
    "all permissions, no staff": Role(EVERY),
    "staff without permission": Role((), STAFF),
    "view": Role(("view",), STAFF),
    "add": Role(("add",), STAFF),
    "change": Role(("change",), STAFF),
    "delete": Role(("delete",), STAFF),
    "all permissions": Role(EVERY, STAFF),
    "all permissions on sessions": Role(EVERY, STAFF, "session"),
    "all permissions on the rest": Role(EVERY, STAFF, "rest"),
    "superuser": Role((), {**STAFF, "is_superuser": True}),
    "inactive superuser": Role((), {**STAFF, "is_superuser": True, "is_active": False}),
}


class Cell(NamedTuple):
    """One call: the role (None: anonymous), the method and the way of authentication."""

    who: str | None
    method: str
    way: str

    @property
    def role(self) -> Role | None:
        return ROLES[self.who] if self.who else None

    def __str__(self) -> str:
        return f"{self.method} by {self.who or 'anonymous'}, {self.way}"

    @property
    def is_forged(self) -> bool:
        return self.way == WITHOUT_CSRF and self.method not in SAFE


def cells(route: Route) -> Iterator[Cell]:
    """All that is tried on a route."""
    for who in (None, *ROLES):
        for method in METHODS:
            yield Cell(who, method, WITH_CSRF)
            if method not in SAFE:
                yield Cell(who, method, WITHOUT_CSRF)
            if route.door == "api" and who is not None:
                yield Cell(who, method, BY_TOKEN)
