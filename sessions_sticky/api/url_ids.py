"""Conversation ids in URL paths.

Paths that contain an id have a fixed first segment, so no id is mistaken for another path: `id/{id}/`, `touch/{id}/`.
The id is percent-encoded as one segment. HTTP clients resolve `.` and `..` at its end, encoded or not. Such an id has a
`~` before its last segment, and so has one that would be mistaken for an escaped one (`~.`, `x/~..`).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.urls import reverse
from rest_framework.request import Request

OWN_KWARGS = ("conversation_id", "operation_key")
"""The captured parameters of this API's routes; others belong to the project's prefix."""


def sessions_path(request: Request) -> str:
    """Return the absolute path of the list, in the namespace and below the prefix of the request."""
    match: Any = request.resolver_match
    given = {*OWN_KWARGS, *match.extra_kwargs}
    prefix = {name: value for name, value in match.kwargs.items() if name not in given}
    return reverse(f"{match.namespace}:sessions", kwargs=prefix)


def session_path(conversation_id: str, under: str) -> str:
    """Return the absolute path of a session's resource; `under` is `sessions_path()`."""
    before, slash, last = conversation_id.rpartition("/")
    mark = "~" if _is_escaped(last) else ""
    return f"{under}id/{quote(f'{before}{slash}{mark}{last}', safe='')}/"


def id_in(segment: str) -> str:
    """Return the id of a decoded path segment from `session_path`; it is not validated."""
    before, slash, last = segment.rpartition("/")
    if last.startswith("~") and _is_escaped(last):
        return f"{before}{slash}{last[1:]}"
    return segment


def _is_escaped(last: str) -> bool:
    return last.lstrip("~") in (".", "..")
