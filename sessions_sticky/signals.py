"""Signals for changed bindings, sent after the change by the process that made it.

| signal | arguments besides `sender`, the manager's class, and `manager`, the `SessionManager` that made the change |
| --- | --- |
| `session_created` | `session`, `actor` |
| `session_rebound` | `session`, `previous` (a `Session`), `reason`, `actor` |
| `session_deleted` | `conversation_id`, `session` (None when it was unreadable), `actor` |

`actor` is `"gateway"` or a user's name. Receivers may be functions or coroutine functions. One that raises is logged
(logger `django.dispatch`) and has no other effect. Changes by other programs send no signal.
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

logger = logging.getLogger("sessions_sticky")

session_created = Signal()
session_rebound = Signal()
session_deleted = Signal()


def send_signal(signal: Signal, manager: object, **arguments: Any) -> None:
    """Send a signal of a manager's change from blocking code, if it has receivers."""
    if not signal.receivers:  # `has_listeners()` overlooks receivers of one sender
        return
    try:
        signal.send_robust(sender=type(manager), manager=manager, **arguments)
    except RuntimeError:  # Django's, for receivers that are coroutine functions, in the thread of an event loop
        logger.exception("coroutine functions were not called: call the async methods where an event loop runs")


async def asend_signal(signal: Signal, manager: object, **arguments: Any) -> None:
    """Send a signal of a manager's change on the event loop, if it has receivers."""
    if signal.receivers:
        await signal.asend_robust(sender=type(manager), manager=manager, **arguments)
