"""Format sessions and times for pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from sessions_sticky.admin.filters import query_of
from sessions_sticky.manager import sessions
from sessions_sticky.queries.filters import Filters
from sessions_sticky.session import EARLIEST, LATEST, Entry, Session

MINUTE, HOUR, DAY = 60, 3_600, 86_400
OUTCOMES: dict[str, str | Promise] = {
    "created": pgettext_lazy("outcome", "created"),
    "hit": pgettext_lazy("outcome", "hit"),
    "spilled": pgettext_lazy("outcome", "spilled"),
    "rebound": pgettext_lazy("outcome", "rebound"),
    "degraded": pgettext_lazy("outcome", "degraded"),
    "ranked": pgettext_lazy("outcome", "ranked"),
    "none": pgettext_lazy("outcome", "none"),
    "unanswered": pgettext_lazy("outcome", "unanswered"),
    "refused": pgettext_lazy("outcome", "refused"),
    "left": pgettext_lazy("outcome", "left"),
}
"""Translated outcomes of the gateway's turns; others are shown unchanged."""
DURATIONS: dict[str, str | Promise] = {
    "days": gettext_lazy("%(days)d d %(hours)d h"),
    "hours": gettext_lazy("%(hours)d h %(minutes)d min"),
    "minutes": gettext_lazy("%(minutes)d min %(seconds)d s"),
    "seconds": gettext_lazy("%(seconds)d s"),
}
"""Translated texts for durations, by their largest unit."""


class SessionRow(NamedTuple):
    """A session formatted for pages.

    `left` is the idle time left in words, `percent` its share of the full idle time. `created_at` is None beyond the
    calendar; `left_seconds`, `last_active_at` and `percent` are None if the cache does not know them. `binding` is the
    displayed binding, for forms.
    """

    session: Session
    url: str
    owner_query: str
    binding: str
    created_at: datetime | None
    last_active_at: datetime | None
    last_active: str
    left_seconds: int | None
    left: str
    percent: int | None


def session_row(entry: Entry, url: str, ttl_seconds: int, now: float) -> SessionRow:
    """Return a session formatted for pages; `now` is in Unix seconds."""
    session, left = entry.session, entry.expires_in
    idle = None if left is None else max(ttl_seconds - left, 0)  # above the full time if the setting was longer before
    return SessionRow(
        session=session,
        url=url,
        owner_query=query_of(Filters(owner=session.external_id)),
        binding=session.to_json().decode(),
        created_at=moment(session.created_at),
        last_active_at=None if idle is None else moment(now - idle),
        last_active=_("unknown") if idle is None else ago(idle),
        left_seconds=left,
        left=_("unknown") if left is None else duration(left),
        percent=None if left is None else min(100, round(100 * left / ttl_seconds)),
    )


def session_rows(entries: Iterable[Entry], url_of: Callable[[str], str]) -> list[SessionRow]:
    """Return sessions formatted for pages; `url_of` returns the URL of a conversation id."""
    ttl_seconds, now = sessions.ttl_seconds, time.time()
    return [session_row(entry, url_of(entry.session.id), ttl_seconds, now) for entry in entries]


def moment(unix_seconds: float) -> datetime | None:
    """Return a time in UTC, None beyond the calendar of any time zone."""
    return datetime.fromtimestamp(unix_seconds, UTC) if EARLIEST <= unix_seconds <= LATEST else None


def duration(seconds: int) -> str:
    """Return a duration in at most two units, as admin.js does."""
    if seconds >= DAY:
        return str(DURATIONS["days"]) % {"days": seconds // DAY, "hours": seconds % DAY // HOUR}
    if seconds >= HOUR:
        return str(DURATIONS["hours"]) % {"hours": seconds // HOUR, "minutes": seconds % HOUR // MINUTE}
    if seconds >= MINUTE:
        return str(DURATIONS["minutes"]) % {"minutes": seconds // MINUTE, "seconds": seconds % MINUTE}
    return str(DURATIONS["seconds"]) % {"seconds": seconds}


def ago(seconds: int) -> str:
    """Return an age in words, to the minute."""
    if seconds >= DAY:
        return _("%(days)d d %(hours)d h ago") % {"days": seconds // DAY, "hours": seconds % DAY // HOUR}
    if seconds >= HOUR:
        return _("%(hours)d h %(minutes)d min ago") % {"hours": seconds // HOUR, "minutes": seconds % HOUR // MINUTE}
    if seconds >= MINUTE:
        return _("%(minutes)d min ago") % {"minutes": seconds // MINUTE}
    return _("in the last minute")
