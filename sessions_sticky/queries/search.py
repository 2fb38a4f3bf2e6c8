"""Search sessions by text: an exact id or owner, else ids that contain it."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import NamedTuple

import msgspec

from sessions_sticky import keys
from sessions_sticky.connections.commands import Batch
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.index_reader import IndexReader, Row, read_entries
from sessions_sticky.queries.pages import Page
from sessions_sticky.queries.reads import Reads
from sessions_sticky.session import plain_text
from sessions_sticky.stores import index
from sessions_sticky.stores.base import Store

SCAN_COUNT = 1_000
"""Entries in one step, which blocks Redis for about 0.3 ms."""
MAX_SECONDS = 0.15
"""How long a page is searched for: some 100,000 entries on a fast server."""


class SearchCursor(NamedTuple):
    """A position in the scan: the cursor of the step to take next, and the last member shown of that step."""

    text: str
    scan: str = "0"
    member: str = ""

    @classmethod
    def read(cls, encoded: str, text: str) -> SearchCursor | None:
        """Parse the result of `str` for this text; return None for other input."""
        try:
            cursor = _DECODER.decode(base64.urlsafe_b64decode(encoded))
        except (ValueError, TypeError, msgspec.MsgspecError):
            return None
        is_valid = cursor.text == text and cursor.scan.isascii() and cursor.scan.isdigit() and len(cursor.scan) <= 20
        return cursor if is_valid else None

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()


_DECODER = msgspec.json.Decoder(SearchCursor)


class Search:
    """Searches one store."""

    def __init__(self, store: Store, ttl_seconds: int) -> None:
        self._reader = IndexReader(store, ttl_seconds)
        self._reads = Reads(store, ttl_seconds)
        self._store = store

    def page(self, text: str, cursor: str | None, limit: int) -> Page:
        """Return the next matching sessions."""
        if not isinstance(text, str) or not text:
            raise ValueError(f"text must be a non-empty string, not {text!r}")
        text = plain_text(text)
        owned = Filters(owner=text)
        if not owned.is_encodable:
            return Page([], None)
        if cursor is not None:
            position = SearchCursor.read(cursor, text)
            return self._containing(position, limit) if position else self._reads.page(owned, cursor, limit)
        _now, (exact,) = self._reader.read([text.encode()])
        if exact is not None:
            return Page([exact.entry], None)
        page = self._reads.page(owned, None, limit)
        return page if page.entries else self._containing(SearchCursor(text), limit)

    def _containing(self, position: SearchCursor, limit: int) -> Page:
        """Scan until the page is full, the scan is complete or has taken `MAX_SECONDS`.

        A step is sorted, so that one that does not fit continues after its last member on the next page.
        """
        rows: list[Row] = []
        hashed = hashlib.sha256(position.text.encode()).hexdigest()  # replaces observed ids that are long or invalid
        patterns = [pattern(position.text), pattern(hashed)]
        until = time.monotonic() + MAX_SECONDS
        while True:
            steps = [index.scan_zset(keys.index_all(), position.scan.encode(), SCAN_COUNT, each) for each in patterns]
            replies = self._store.send(Batch(steps))
            flat = [each for reply in replies if reply for each in reply[1]]
            entries = {entry.conversation_id: entry for entry in read_entries(keys.index_all(), flat)}
            new = [entries[member] for member in sorted(entries) if member > position.member]
            taken = new[: limit - len(rows)]
            rows += self._reader.verify(taken)
            following = replies[0][0].decode() if replies[0] else "0"
            if len(taken) < len(new):
                position = position._replace(member=taken[-1].conversation_id)
                return Page([row.entry for row in rows], str(position))
            position = SearchCursor(position.text, following)
            if following == "0":
                return Page([row.entry for row in rows], None)
            if len(rows) == limit or time.monotonic() >= until:
                return Page([row.entry for row in rows], str(position))


def pattern(text: str) -> bytes:
    r"""Return the glob of `MATCH` for ids that contain a text: `*`, `?`, `[`, `]`, `^` and `\` are literal."""
    escaped = "".join(f"\\{char}" if char in "*?[]^\\" else char for char in text)
    return f"*{escaped}*".encode()
