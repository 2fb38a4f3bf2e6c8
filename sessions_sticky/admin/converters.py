"""Conversation ids in the paths of Django admin.

Django admin's own quoting makes any id one segment of a path, but leaves `.` and `..`, which browsers resolve away.
Here they are quoted in the path, so that Django's own links (recent actions, history) work for them too.
"""

from __future__ import annotations

from django.contrib.admin.utils import unquote
from django.urls import register_converter

QUOTED = {".": "_2E", "..": "_2E_2E"}
"""A prefix that Django's quoting never returns: it quotes `_` as `_5F`."""
UNQUOTED = {quoted: dots for dots, quoted in QUOTED.items()}


class QuotedId:
    """A path converter: decodes ids quoted by `django.contrib.admin.utils.quote`."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        """Return the conversation id; it is not checked."""
        return UNQUOTED.get(value) or unquote(value)

    def to_url(self, value: str) -> str:
        """Return the segment for a quoted id."""
        return QUOTED.get(value, value)


register_converter(QuotedId, "quoted_id")
