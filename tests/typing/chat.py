"""Uses every public name of sessions_sticky; type-checked, never run. `assert_type` says what a checker must see."""

from __future__ import annotations

from datetime import datetime
from typing import assert_type

from django.http import HttpRequest, JsonResponse
from django.test import TestCase
from django.urls import include, path

from sessions_sticky import (
    Activity,
    Attempt,
    Entry,
    Event,
    HourStats,
    InvalidConversationId,
    InvalidCursor,
    InvalidSession,
    MinuteMoves,
    MinuteTurns,
    Outcome,
    OwnerUsage,
    Page,
    Price,
    PromptCache,
    RecordedTurn,
    Resolution,
    RouteStats,
    RouteUsage,
    Session,
    SessionConflict,
    SessionError,
    SessionManager,
    SessionNotSupported,
    SessionOwnerMismatch,
    SessionQuery,
    SessionStoreUnavailable,
    SpillOver,
    Stats,
    Trail,
    Turn,
    TurnTotals,
    UnknownProvider,
    Usage,
    UsageReport,
    cache_config,
    keys,
    rendezvous,
    session_created,
    session_deleted,
    session_rebound,
    sessions,
)
from sessions_sticky.testing import (
    advance_time,
    create_session,
    isolate_process,
    isolated,
    make_session,
    reset,
    store_down,
    valkey,
)

CACHES = {"default": cache_config("redis://localhost:6379/0")}
urlpatterns = [path("api/sessions/", include("sessions_sticky.urls"))]


def chat(request: HttpRequest) -> JsonResponse:
    """Blocking."""
    conversation_id = request.headers["X-Conversation-Id"]
    provider, *others = rendezvous(conversation_id, {"openai": 2, "mistral": 0.5})
    assert_type(others, list[str])
    try:
        found = sessions.resolve(conversation_id, provider=provider, model="gpt-4o", owner="user-1")
    except (InvalidConversationId, InvalidSession) as exc:
        return JsonResponse({"error": str(exc)}, status=400)
    except SessionOwnerMismatch as exc:
        return JsonResponse({"error": exc.conversation_id}, status=403)
    assert_type(found, Resolution)
    session, outcome = found
    assert_type(session, Session)
    assert_type(outcome, Outcome)
    assert_type(session.created_at, int)
    return JsonResponse({"degraded": outcome is Outcome.DEGRADED, "provider": session.provider})


async def chat_async(conversation_id: str) -> Session:
    """On the event loop."""
    session, _ = await sessions.aresolve(conversation_id, provider="openai", model="gpt-4o", owner="user-1")
    try:
        return await sessions.arebind(session, provider="mistral", model="large", reason="openai is down")
    except SessionConflict as exc:
        return assert_type(exc.current, Session | None) or session
    except (SessionNotSupported, SessionStoreUnavailable):
        return session


def operate(manager: SessionManager) -> None:
    """What operators do."""
    assert_type(manager.get("conv-123"), Session | None)
    assert_type(manager.inspect("conv-123"), Entry | None)
    assert_type(manager.touch("conv-123"), bool)
    assert_type(manager.delete("conv-123"), bool)
    assert_type(manager.create("conv-123", "openai", "gpt-4o", "user-1"), Session)
    page = manager.filter(provider="openai").page(limit=10)
    assert_type(page, Page)
    assert_type(page.entries[0].expires_in, int | None)
    assert_type(page.next_cursor, str | None)
    assert_type(manager.filter(owner="user-1").count(), int)
    stats = manager.stats()
    assert_type(stats, Stats)
    assert_type(stats.routes[0], RouteStats)
    assert_type(manager.created_per_hour(), list[HourStats])
    assert_type(manager.history("conv-123"), list[Event])
    assert_type(manager.history("conv-123")[0].at, datetime)
    named = manager.acting_as("ops")
    assert_type(named, SessionManager)
    assert_type(named.filter(provider="openai").rebind(to_provider="mistral", reason="drain"), int)
    assert_type(named.all().delete(), int)
    assert_type(named.reindex(), int)


def drain(manager: SessionManager) -> int:
    """Filter, count and move."""
    found = manager.filter(provider="openai", owner="user-1")
    assert_type(found, SessionQuery)
    assert_type(found.count(), int)
    assert_type(found.page(limit=10), Page)
    try:
        return assert_type(found.rebind(to_provider="mistral", reason="drain"), int)
    except UnknownProvider:
        return assert_type(manager.all().delete(), int)


async def owners(manager: SessionManager) -> set[str]:
    """Read all sessions."""
    assert_type([entry async for entry in manager.all()], list[Entry])
    return {entry.session.owner async for entry in manager.all()}


def account(manager: SessionManager) -> None:
    """Record a turn and read what turns used."""
    usage = Usage(input=2_000, read=1_900, output=10)
    turn = Turn(
        conversation_id="conv-123",
        at=1_800_000_000,
        provider="openai",
        model="gpt-4o",
        outcome="spilled",
        attempts=(Attempt("azure", 503),),
        usage=usage,
        price=Price(input=2.5, cached_input=0.25, output=10),
    )
    assert_type(manager.record_turn(turn), bool)
    trail = manager.trail("conv-123")
    assert_type(trail, Trail)
    assert_type(trail.turns, list[RecordedTurn])
    assert_type(trail.totals, TurnTotals)
    assert_type(trail.caches, dict[str, PromptCache])
    assert_type(trail.spill_overs, list[SpillOver])
    activity = manager.activity(minutes=60)
    assert_type(activity, Activity)
    assert_type(activity.turns, list[MinuteTurns])
    assert_type(activity.moves, list[MinuteMoves])
    report = manager.usage(minutes=60)
    assert_type(report, UsageReport)
    assert_type(report.routes, list[RouteUsage])
    assert_type(report.owners, list[OwnerUsage])


async def operate_async(manager: SessionManager) -> None:
    """The async twins have the same results."""
    assert_type(await manager.aget("conv-123"), Session | None)
    assert_type(await manager.all().apage(), Page)
    assert_type(await manager.all().acount(), int)
    assert_type(await manager.adelete("conv-123"), bool)


def tell(sender: type[SessionManager], session: Session, **kwargs: object) -> None:
    """Receive a signal."""


for signal in (session_created, session_rebound, session_deleted):
    signal.connect(tell)


def raw(value: bytes) -> bytes:
    """Speak the wire format."""
    try:
        session = Session.from_json(value)
    except InvalidSession as exc:
        raise SessionError(keys.session("conv-123")) from exc
    return session.to_json()


def next_page(cursor: str) -> Page:
    """Continue at the position of a caller."""
    try:
        return SessionManager("default", ttl_seconds=60).all().page(cursor=cursor)
    except InvalidCursor:
        return sessions.all().page()


def setup_test_environment() -> None:
    """Keep sessions out of the store in a test runner of the project's own."""
    isolate_process()


class ChatTests(TestCase):
    """Tests of hers."""

    def setUp(self) -> None:
        """Keep each test for itself."""
        self.enterContext(isolated())

    @valkey()
    def test_degrades(self) -> None:
        """Take the store down."""
        reset()
        assert_type(make_session(provider="openai"), Session)
        session = create_session("conv-123")
        advance_time(60)
        with store_down():
            assert sessions.resolve(session.id, provider="p", model="m", owner="user-1").session == session
