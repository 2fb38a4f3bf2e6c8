"""Signals of changed bindings, for receivers of the project; sent after the change, by whoever made it.

| signal | arguments besides `sender`, the manager's class |
| --- | --- |
| `session_created` | `session`, `actor` |
| `session_rebound` | `session`, `previous` (a `Session`), `reason`, `actor` |
| `session_deleted` | `conversation_id`, `session` (None when it was unreadable), `actor` |

`actor` is `"gateway"` or a user's name. Receivers may be functions or coroutine functions. One that raises is logged
(logger `django.dispatch`) and disturbs nobody. Other programs' changes send no signal here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from django.dispatch import Signal

session_created = Signal()
session_rebound = Signal()
session_deleted = Signal()


class Announcement(NamedTuple):
    """A signal to be sent."""

    signal: Signal
    arguments: dict[str, Any]
