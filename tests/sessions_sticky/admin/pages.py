"""Paths of the pages in Django admin, and what is read from them."""

from __future__ import annotations

import re
import threading
from html import unescape
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.urls import reverse

from sessions_sticky import Session

BASE = "/admin/sessions_sticky/session/"
PROPOSED = {"provider": "openai", "model": "gpt-4", "owner": "user-456"}
MOVE, DELETE = f"{BASE}move/", f"{BASE}delete/"
CONFIRMED = {"confirmed": "1"}
TARGET = {"to-provider": "mistral", "to-model": "large", "to-reason": "openai is being drained"}


def wait_for_jobs() -> None:
    """Wait for the threads of jobs, which would otherwise change the sessions of the next test."""
    for thread in threading.enumerate():
        if thread.name.startswith("job "):
            thread.join(10)


def page_of(conversation_id: str, name: str = "change") -> str:
    """The URL of a page of one session, as Django admin's own links have it."""
    return reverse(f"admin:sessions_sticky_session_{name}", args=[quote(conversation_id)])


def listed(response: Any) -> list[str]:
    """The conversation ids in a list, in its order."""
    assert response.status_code == 200, response.status_code
    return [row.session.id for row in response.context["rows"]]


def binding(session: Session) -> str:
    """What a form posts of a session that was shown."""
    return session.to_json().decode()


def selected(sessions: list[Session]) -> dict[str, list[str]]:
    """What the list posts when some of its rows are ticked."""
    return {"selected": [binding(session) for session in sessions]}


def logged() -> set[tuple[str | None, int, str]]:
    """What the log of Django admin says: conversation id, flag and message."""
    return {(each.object_id, each.action_flag, each.get_change_message()) for each in LogEntry.objects.all()}


def query(**fields: str) -> str:
    """The URL of the list with some parameters."""
    return f"{BASE}?{urlencode(fields)}"


def messages_of(response: Any) -> list[str]:
    """The messages on a page."""
    return [str(message) for message in response.context["messages"]]


def hidden_fields(response: Any) -> dict[str, list[str]]:
    """The hidden fields of the page's forms, but for the CSRF token."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', response.text):
        if name != "csrfmiddlewaretoken":
            found.setdefault(unescape(name), []).append(unescape(value))
    return found
