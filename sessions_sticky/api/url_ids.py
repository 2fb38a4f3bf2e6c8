"""Conversation ids in URL paths.

A path contains an id percent-encoded as one segment. Servers decode `%2F` before Django sees the path, so the routes
match any characters. Two kinds of ids are escaped with a `~` before their last segment:

- those that end in `.` or `..`, which HTTP clients resolve away, encoded or not;
- those that equal a route for reading: `stats`, `x/history`, `operations`, `operations/{32 hexadecimal digits}`.

So are ids that would be mistaken for an escaped one (`~.`, `x/~history`); all others are unchanged.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from django.urls import reverse
from rest_framework.request import Request

OWN_KWARGS = ("id", "key")
"""The captured parameters of this API's routes; others belong to the project's prefix."""

_TAKEN = {".", "..", "stats", "history", "operations"}
_OPERATION = re.compile(r"[0-9a-f]{32}")


def sessions_path(request: Request) -> str:
    """Return the absolute path of the list, in the namespace and below the prefix of the request."""
    match: Any = request.resolver_match
    given = {*OWN_KWARGS, *match.extra_kwargs}
    prefix = {name: value for name, value in match.kwargs.items() if name not in given}
    return reverse(f"{match.namespace}:sessions", kwargs=prefix)


def session_path(conversation_id: str, under: str) -> str:
    """Return the absolute path of a session's resource; `under` is `sessions_path()`."""
    before, slash, last = conversation_id.rpartition("/")
    mark = "~" if _is_taken(before, last) else ""
    return f"{under}{quote(f'{before}{slash}{mark}{last}', safe='')}/"


def id_in(segment: str) -> str:
    """Return the id of a decoded path segment from `session_path`; it is not validated."""
    before, slash, last = segment.rpartition("/")
    if last.startswith("~") and _is_taken(before, last):
        return f"{before}{slash}{last[1:]}"
    return segment


def _is_taken(before: str, last: str) -> bool:
    bare = last.lstrip("~")
    return bare in _TAKEN or (before == "operations" and _OPERATION.fullmatch(bare) is not None)
