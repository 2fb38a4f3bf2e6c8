"""Who changed what through the API: what it shares with Django admin."""

from __future__ import annotations

from sessions_sticky.audit import Flag, record

__all__ = ["Flag", "record"]
