"""Session affinity for LLM gateways: a conversation stays on the provider and model it began with.

Add `"sessions_sticky"` to INSTALLED_APPS, then:

    from sessions_sticky import sessions
    session, outcome = sessions.resolve("conv-123", provider="openai", model="gpt-4", owner="user-456")

Importing the package reads no settings, opens no connection and loads none of its modules: names are loaded when used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessions_sticky import keys as keys
    from sessions_sticky.connections.cache_config import cache_config as cache_config
    from sessions_sticky.exceptions import InvalidConversationId as InvalidConversationId
    from sessions_sticky.exceptions import InvalidCursor as InvalidCursor
    from sessions_sticky.exceptions import InvalidSession as InvalidSession
    from sessions_sticky.exceptions import SessionError as SessionError
    from sessions_sticky.exceptions import SessionNotSupported as SessionNotSupported
    from sessions_sticky.exceptions import SessionOwnerMismatch as SessionOwnerMismatch
    from sessions_sticky.exceptions import SessionStoreUnavailable as SessionStoreUnavailable
    from sessions_sticky.exceptions import UnknownProvider as UnknownProvider
    from sessions_sticky.manager import SessionManager as SessionManager
    from sessions_sticky.manager import sessions as sessions
    from sessions_sticky.queries.pages import HourStats as HourStats
    from sessions_sticky.queries.pages import Page as Page
    from sessions_sticky.queries.pages import RouteStats as RouteStats
    from sessions_sticky.queries.pages import Stats as Stats
    from sessions_sticky.queries.query import SessionQuery as SessionQuery
    from sessions_sticky.queries.usage import Activity as Activity
    from sessions_sticky.queries.usage import MinuteMoves as MinuteMoves
    from sessions_sticky.queries.usage import MinuteTurns as MinuteTurns
    from sessions_sticky.queries.usage import OwnerUsage as OwnerUsage
    from sessions_sticky.queries.usage import RouteUsage as RouteUsage
    from sessions_sticky.queries.usage import UsageReport as UsageReport
    from sessions_sticky.ranking import rendezvous as rendezvous
    from sessions_sticky.session import Entry as Entry
    from sessions_sticky.session import Outcome as Outcome
    from sessions_sticky.session import Resolution as Resolution
    from sessions_sticky.session import Session as Session
    from sessions_sticky.session import SessionConflict as SessionConflict
    from sessions_sticky.signals import session_created as session_created
    from sessions_sticky.signals import session_deleted as session_deleted
    from sessions_sticky.signals import session_rebound as session_rebound
    from sessions_sticky.stores.history import Event as Event
    from sessions_sticky.turns import Attempt as Attempt
    from sessions_sticky.turns import Price as Price
    from sessions_sticky.turns import PromptCache as PromptCache
    from sessions_sticky.turns import RecordedTurn as RecordedTurn
    from sessions_sticky.turns import SpillOver as SpillOver
    from sessions_sticky.turns import Trail as Trail
    from sessions_sticky.turns import Turn as Turn
    from sessions_sticky.turns import TurnTotals as TurnTotals
    from sessions_sticky.turns import Usage as Usage

__version__ = "0.2.0"

_NAMES_OF = {
    "connections.cache_config": ["cache_config"],
    "exceptions": [
        *("InvalidConversationId", "InvalidCursor", "InvalidSession", "SessionError", "SessionNotSupported"),
        *("SessionOwnerMismatch", "SessionStoreUnavailable", "UnknownProvider"),
    ],
    "keys": ["keys"],
    "manager": ["SessionManager", "sessions"],
    "queries.pages": ["HourStats", "Page", "RouteStats", "Stats"],
    "queries.query": ["SessionQuery"],
    "queries.usage": ["Activity", "MinuteMoves", "MinuteTurns", "OwnerUsage", "RouteUsage", "UsageReport"],
    "ranking": ["rendezvous"],
    "session": ["Entry", "Outcome", "Resolution", "Session", "SessionConflict"],
    "signals": ["session_created", "session_deleted", "session_rebound"],
    "stores.history": ["Event"],
    "turns": ["Attempt", "Price", "PromptCache", "RecordedTurn", "SpillOver", "Trail", "Turn", "TurnTotals", "Usage"],
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"sessions_sticky.{_MODULE_OF[name]}")
    value = module if name == "keys" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
