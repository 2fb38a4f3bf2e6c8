"""Conversation ids in URL paths.

Any id may stand in a path, percent-encoded as one segment. Servers decode `%2F` before Django sees the path, so the
routes take whatever comes. Only `.` and `..` need more: HTTP clients resolve them away, encoded or not. Ids of dots
therefore get a `~` in front, and so do those that would then be mistaken for one (`~.`); all others stay as they are.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from django.urls import reverse

_DOTS = re.compile(r"~*\.\.?")


def session_path(conversation_id: str) -> str:
    """Return the absolute path of a session's resource."""
    segment = f"~{conversation_id}" if _DOTS.fullmatch(conversation_id) else conversation_id
    return f"{reverse('sessions_sticky:sessions')}{quote(segment, safe='')}/"


def id_in(segment: str) -> str:
    """Return the id that a decoded path segment stands for, as `session_path` wrote it; it is not checked."""
    return segment[1:] if segment.startswith("~") and _DOTS.fullmatch(segment) else segment
