"""The trail of a session on Redis: its turns, its totals, and what the prompt caches should hold."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from sessions_sticky import (
    Attempt,
    InvalidConversationId,
    InvalidSession,
    Price,
    PromptCache,
    SessionNotSupported,
    SessionStoreUnavailable,
    SpillOver,
    Trail,
    Turn,
    TurnTotals,
    Usage,
    keys,
)
from sessions_sticky.connections.commands import Command
from sessions_sticky.queries.usage import first_byte_ms
from sessions_sticky.stores import usage
from sessions_sticky.stores.trail import MAX_TURN_BYTES
from tests.conftest import SHARDED_STORES
from tests.sessions_sticky.calls import MOVE, PROPOSAL
from tests.sessions_sticky.marks import on_portable, on_redis

NOW = int(time.time())
PRICE = Price(input=2.0, output=8.0, cached_input=0.5, cache_write=2.5)
NAMED = ("provider", "model", "outcome", "bound_provider", "source", "reason")


def turn(conversation_id: str | None = "conv-123", **fields) -> Turn:
    defaults = {"at": NOW, "provider": "openai", "model": "gpt-4", "outcome": "hit", "bound_provider": "openai"}
    return Turn(conversation_id=conversation_id, **{**defaults, **fields})


@on_redis
def test_record_turn_keeps_every_field(call):
    call("create", "conv-123", **PROPOSAL)
    assert call(
        "record_turn",
        turn(
            provider="azure",
            outcome="spilled",
            source="header.x-session-id",
            reason="provider failed",
            status=201,
            attempts=(Attempt("openai", 503, "overloaded"),),
            first_byte_ms=312,
            usage=Usage(input=4_000, read=2_048, written=1_024, output=300),
            price=PRICE,
        ),
    )
    (recorded,) = call("trail", "conv-123").turns
    assert (recorded.at.timestamp(), recorded.provider, recorded.model) == (NOW, "azure", "gpt-4")
    assert (recorded.outcome, recorded.bound_provider, recorded.source) == ("spilled", "openai", "header.x-session-id")
    assert recorded.reason == "provider failed"
    assert (recorded.status, recorded.attempts) == (201, (Attempt("openai", 503, "overloaded"),))
    assert (recorded.first_byte_ms, recorded.usage) == (312, Usage(4_000, 2_048, 1_024, 300))
    assert recorded.saved == 2_048 * 1.5 - 1_024 * 0.5


@on_redis
def test_trail_is_empty_when_there_is_no_session_or_no_turn(call):
    assert call("record_turn", turn()) is False
    assert call("trail", "conv-123") == Trail()
    call("create", "conv-123", **PROPOSAL)
    assert call("trail", "conv-123") == Trail()


@on_redis
def test_trail_keeps_the_last_turns_and_sums_all(call, settings):
    settings.SESSIONS_STICKY = {"TRAIL_LENGTH": 3}
    call("create", "conv-123", **PROPOSAL)
    for number in range(5):
        usage = None if number == 0 else Usage(input=1_000 * number, read=100, written=7, output=number)
        assert call("record_turn", turn(at=NOW + number, usage=usage, price=PRICE))
    trail = call("trail", "conv-123")
    assert [each.at.timestamp() for each in trail.turns] == [NOW + 2, NOW + 3, NOW + 4]
    saved = 4 * round(100 * 1.5 - 7 * 0.5)
    assert trail.totals == TurnTotals(5, 1, 10_000, 400, 28, 10, saved)
    assert trail.totals.cached_share == 0.04
    assert TurnTotals().cached_share is None


@on_redis
def test_turn_expects_what_the_last_one_at_its_provider_left(call):
    call("create", "conv-123", **PROPOSAL)
    call("record_turn", turn(usage=Usage(3_000)))
    call("record_turn", turn(at=NOW + 10, usage=Usage(4_000, read=2_944)))
    call("record_turn", turn(at=NOW + 20, usage=None))
    call("record_turn", turn(at=NOW + 30, usage=Usage(5_000, read=0)))
    call("record_turn", turn(at=NOW + 331, usage=Usage(6_000, read=0)))
    trail = call("trail", "conv-123")
    assert [each.expected for each in trail.turns] == [0, 2_944, 0, 3_968, 0]
    assert [each.lost for each in trail.turns] == [0] * 5
    assert trail.caches == {"openai": PromptCache(NOW + 631, 5_888)}
    assert (trail.last_provider, trail.totals.expected) == ("openai", 6_912)


@on_redis
def test_move_costs_what_was_warm_and_was_not_read(call):
    call("create", "conv-123", **PROPOSAL)
    call("record_turn", turn(usage=Usage(5_000), ended_at=NOW + 5, price=PRICE))
    call("record_turn", turn(at=NOW + 10, provider="azure", usage=Usage(5_000, read=1_024), price=PRICE))
    call("record_turn", turn(at=NOW + 20, usage=Usage(5_000, read=4_992), price=PRICE))
    call("record_turn", turn(at=NOW + 400, provider="azure", usage=Usage(5_000), price=PRICE))
    trail = call("trail", "conv-123")
    assert [each.lost for each in trail.turns] == [0, 4_992 - 1_024, 0, 0]
    assert trail.totals.lost_money == round((4_992 - 1_024) * 1.5)
    assert trail.caches["openai"] == PromptCache(NOW + 320, 4_992)
    assert trail.last_provider == "azure"


def spilled(at: int, provider: str = "azure", reason: str = "provider failed") -> Turn:
    return turn(at=NOW + at, provider=provider, outcome="spilled", reason=reason)


def spill_over(provider: str, first: int, last: int, turns: int, reason: str = "provider failed") -> SpillOver:
    times = [datetime.fromtimestamp(NOW + at, UTC) for at in (first, last)]
    return SpillOver(provider, "openai", times[0], times[1], turns, reason)


@on_redis
def test_trail_keeps_spill_overs_when_their_turns_are_gone(call, settings):
    settings.SESSIONS_STICKY = {"TRAIL_LENGTH": 2}
    call("create", "conv-123", **PROPOSAL)
    for each in (spilled(0), spilled(1, reason="provider is cooling down"), spilled(2), turn(at=NOW + 3)):
        call("record_turn", each)
    for each in (spilled(4, reason=""), spilled(5, provider="anthropic"), turn(at=NOW + 6), turn(at=NOW + 7)):
        call("record_turn", each)
    trail = call("trail", "conv-123")
    assert [each.outcome for each in trail.turns] == ["hit", "hit"]
    assert trail.spill_overs == [
        spill_over("azure", 0, 2, 3),
        spill_over("azure", 4, 4, 1, ""),
        spill_over("anthropic", 5, 5, 1),
    ]
    assert trail.caches.keys() == {"openai", "azure", "anthropic"}


@on_redis
def test_trail_keeps_the_last_spill_overs(call):
    call("create", "conv-123", **PROPOSAL)
    for at in range(0, 16, 2):
        call("record_turn", spilled(at))
        call("record_turn", turn(at=NOW + at + 1))
    trail = call("trail", "conv-123")
    assert [each.first_at.timestamp() - NOW for each in trail.spill_overs] == [6, 8, 10, 12, 14]


@on_redis
def test_turn_without_an_answer_leaves_nothing_in_a_cache(call):
    call("create", "conv-123", **PROPOSAL)
    call("record_turn", turn(status=503))
    trail = call("trail", "conv-123")
    assert (trail.caches, trail.last_provider, trail.turns[0].status) == ({}, None, 503)


@pytest.mark.parametrize(
    ("usage", "warm"),
    [
        (Usage(1_023), 0),
        (Usage(1_151), 1_024),
        (Usage(9_000, read=3_000, written=4_000), 7_000),
        (Usage(9_000, cached=0), 0),
        (Usage(9_000, read=3_000, cached=3_000), 3_000),
    ],
)
def test_usage_returns_what_the_next_turn_should_read(usage, warm):
    assert usage.warm == warm


@on_redis
def test_trail_ends_with_its_session(call):
    replace = {**PROPOSAL, "replace": True}
    for end in (lambda: call("delete", "conv-123"), lambda: call("create", "conv-123", **replace)):
        call("create", "conv-123", **replace)
        call("record_turn", turn())
        end()
        assert call("trail", "conv-123") == Trail()


@on_redis
def test_trail_starts_again_when_another_program_deleted_the_session(call, manager):
    call("create", "conv-123", **PROPOSAL)
    call("record_turn", turn())
    request = manager._store.read(keys.session("conv-123"))
    assert manager._store.send(request) is not None
    manager._store.send(Command(("DEL", keys.session("conv-123"))))
    manager._store.last_seen.forget("conv-123")
    call("resolve", "conv-123", **PROPOSAL)
    assert call("trail", "conv-123") == Trail()


@on_redis
def test_trail_stays_when_the_session_moves(call):
    session = call("create", "conv-123", **PROPOSAL)
    call("record_turn", turn())
    call("rebind", session, **MOVE)
    assert len(call("trail", "conv-123").turns) == 1


@on_redis
def test_trail_expires_with_its_session(call, raw):
    call("create", "conv-123", **PROPOSAL)
    raw.pexpire(keys.session("conv-123"), 50_000)
    call("record_turn", turn())
    assert 40_000 < raw.pttl(keys.trail("conv-123")) <= 50_000
    raw.persist(keys.session("conv-123"))
    call("record_turn", turn())
    assert 86_390_000 < raw.pttl(keys.trail("conv-123")) <= 86_400_000


@on_redis
def test_turn_takes_at_most_80_bytes(call, raw):
    call("create", "conv-123", **PROPOSAL)
    attempts = tuple(Attempt(f"provider-{number}", 599, f"code_{number}") for number in range(9))
    large = Usage(2**40, 2**40, 2**40, 2**40)
    for number in range(14):
        names = {name: f"{name} {number}" * 9 for name in NAMED}
        fields = {"usage": large, "attempts": attempts, "first_byte_ms": 2**40, "price": PRICE}
        call("record_turn", turn(at=NOW + number, **names, **fields))
    header, *turns = raw.lrange(keys.trail("conv-123"), 0, -1)
    assert max(map(len, turns)) <= MAX_TURN_BYTES
    assert len(turns) == 8
    assert header.count(b"\n") == 61
    trail = call("trail", "conv-123")
    assert trail.turns[0].provider == "provider 6" * 9
    assert trail.turns[-1].provider == ""  # the header has no room for more names
    assert trail.totals.turns == 14


@on_redis
def test_trail_keeps_names_apart_when_they_have_line_breaks(call):
    call("create", "conv-123", **PROPOSAL)
    texts = {name: f"{name}\n$1\t" for name in NAMED} | {"reason": ""}
    call("record_turn", turn(**texts, attempts=(Attempt("a\nb", 503, "c\nd"),)))
    (recorded,) = call("trail", "conv-123").turns
    assert {name: getattr(recorded, name) for name in NAMED} == {
        name: text.replace("\n", "?").replace("\t", "?") for name, text in texts.items()
    }
    assert recorded.attempts == (Attempt("a?b", 503, "c?d"),)


@on_redis
def test_trail_keeps_the_last_attempts(call):
    call("create", "conv-123", **PROPOSAL)
    attempts = (Attempt("openai", 503), Attempt("openai", 504, "upstream_timeout"), Attempt("eu", 429, "rate_limit"))
    usage = Usage(91_234, 90_112, 0, 1_411)
    call("record_turn", turn(provider="azure", attempts=attempts, usage=usage, first_byte_ms=1_234, price=PRICE))
    (recorded,) = call("trail", "conv-123").turns
    assert recorded.attempts[-2:] == attempts[-2:]


@on_redis
def test_trail_leaves_out_what_is_damaged(call, raw):
    call("create", "conv-123", **PROPOSAL)
    raw.rpush(keys.trail("conv-123"), b"1 x", b"\xffothing", b"1 2 3")
    assert call("trail", "conv-123") == Trail(totals=TurnTotals(1))
    assert call("record_turn", turn())
    assert len(call("trail", "conv-123").turns) == 1
    raw.delete(keys.trail("conv-123"))
    huge = b"9" * 400
    raw.rpush(keys.trail("conv-123"), b"%b\n9:1:1 0:5:6 1:%b:%b\nopenai\nazure" % (huge, huge, huge))
    assert call("trail", "conv-123").caches == {"openai": PromptCache(5, 6)}
    assert call("record_turn", turn(provider="azure"))
    assert call("trail", "conv-123").caches.keys() == {"openai", "azure"}


@on_redis
def test_spill_overs_leave_out_what_is_damaged(call, raw):
    call("create", "conv-123", **PROPOSAL)
    damaged = b"9-0-1-2-3-0 0-1-%b-2-1- 0-1-9999999999999-2-1- 0-1-x-2-1- 1-0-7-8-9-" % (b"9" * 400)
    raw.rpush(keys.trail("conv-123"), b"1\n0:5:6 %b\nopenai\nazure" % damaged, b"0 0 0 0 1  0   0 0 0 0 0 0 0 0")
    first, second = call("trail", "conv-123").spill_overs
    assert (first.provider, first.bound_provider, first.turns, first.reason) == ("", "openai", 3, "openai")
    assert (second.provider, second.last_at.timestamp(), second.reason) == ("azure", 8, "")
    assert call("record_turn", spilled(0))
    assert call("trail", "conv-123").spill_overs[-1] == spill_over("azure", 0, 0, 1)


@on_redis
def test_trail_replaces_a_key_of_another_type(call, raw):
    call("create", "conv-123", **PROPOSAL)
    raw.set(keys.trail("conv-123"), b"text")
    assert call("trail", "conv-123") == Trail()
    assert call("record_turn", turn())
    assert len(call("trail", "conv-123").turns) == 1


@on_portable
def test_no_trail_is_kept_when_the_cache_is_portable(call):
    call("create", "conv-123", **PROPOSAL)
    assert call("record_turn", turn()) is False
    assert call("trail", "conv-123") == Trail()


def test_no_trail_is_kept_when_its_length_is_zero(call, settings):
    settings.SESSIONS_STICKY = {"TRAIL_LENGTH": 0}
    call("create", "conv-123", **PROPOSAL)
    assert call("record_turn", turn()) is False
    assert call("trail", "conv-123") == Trail()


@pytest.mark.parametrize(
    "fields",
    [{"provider": 1}, {"usage": Usage(-1)}, {"at": float("nan")}, {"status": 1000}, {"model": "\ud800"}],
)
def test_record_turn_refuses_what_cannot_be_stored(call, fields):
    with pytest.raises(InvalidSession, match="Invalid turn"):
        call("record_turn", turn(**fields))


@on_redis
def test_record_turn_takes_prices_of_a_decimal_field(call):
    call("create", "conv-123", **PROPOSAL)
    price = Price(input=Decimal("2.50"), cached_input=Decimal("0.5"))
    assert call("record_turn", turn(usage=Usage(input=4_000, read=2_048), price=price))
    assert call("trail", "conv-123").totals.saved == 2_048 * 2


@on_redis
def test_record_turn_takes_parts_as_they_are_read_from_json(call):
    call("create", "conv-123", **PROPOSAL)
    given = {"usage": {"input": 2_000, "read": 1_024}, "price": {"input": 2.0}, "attempts": [["azure", 503]]}
    assert call("record_turn", turn(**given))
    (recorded,) = call("trail", "conv-123").turns
    assert (recorded.usage, recorded.attempts) == (Usage(2_000, 1_024), (Attempt("azure", 503),))


def test_trail_refuses_an_invalid_id(call):
    for name, argument in (("trail", "a\nb"), ("record_turn", turn("a\nb"))):
        with pytest.raises(InvalidConversationId):
            call(name, argument)


@on_redis
def test_usage_sums_turns_by_route_and_by_owner(call):
    call("create", "conv-123", **PROPOSAL)
    call("record_turn", turn(usage=Usage(3_000, output=5), owner="ann", first_byte_ms=90, price=PRICE))
    again = Usage(4_000, read=2_000)
    call("record_turn", turn(at=NOW + 1, usage=again, owner="ann", first_byte_ms=90_000, price=PRICE))
    failed = (Attempt("openai", 503),)
    call("record_turn", turn(None, provider="azure", outcome="spilled", owner="bob", attempts=failed))
    for minutes in (60, 1_440):
        report = call("usage", minutes)
        routes = {(each.provider, each.outcome): each for each in report.routes}
        assert routes["openai", "hit"].totals == TurnTotals(2, 0, 7_000, 2_000, 0, 5, 3_000, 2_944, 0, 0)
        assert routes["openai", "hit"].first_bytes == {100: 1, 0: 1}
        assert routes["openai", "failed"].totals == TurnTotals(1)
        assert routes["azure", "spilled"].totals == TurnTotals(1, 1)
        assert [(each.external_id, each.totals.turns) for each in report.owners] == [("ann", 2), ("bob", 1)]


@on_redis
def test_usage_omits_invalid_sums(call, raw):
    hour = int(time.time()) // 3600
    for period, number in (("hour", hour), ("owners", hour)):
        for field, value in ((b"text", b"1"), (b'["a"]', b"1"), (b'["a","turns"]', b"x"), (b"[1]", b"1")):
            raw.hset(keys.usage(period, number), field, value)
    assert call("usage") == ([], [])


@pytest.mark.parametrize("store_name", SHARDED_STORES, indirect=True)  # fakeredis disconnects, so all is sent again
def test_usage_adds_the_other_sums_when_one_is_no_number(call, raw, caplog):
    hour = keys.usage("hour", int(time.time()) // 3600)
    raw.hset(hour, b'["openai","gpt-4","hit","turns"]', b"x")
    call("create", "conv-123", **PROPOSAL)
    assert call("record_turn", turn(usage=Usage(3_000, output=5)))
    assert "usage of 1 turns not added" in caplog.text
    assert raw.hget(hour, b'["openai","gpt-4","hit","input"]') == b"3000"
    assert 0 < raw.ttl(hour) <= 26 * 3600


@pytest.mark.parametrize("minutes", [0, 1_441, True, "60"])
def test_usage_refuses_other_times(manager, minutes):
    with pytest.raises(ValueError, match="must be a whole number from 1 to 1440"):
        manager.usage(minutes)


@on_portable
def test_usage_is_refused_when_the_cache_is_portable(call):
    with pytest.raises(SessionNotSupported):
        call("usage")


@on_redis
async def test_turns_are_recorded_together_in_order(manager):
    await manager.acreate("conv-123", **PROPOSAL)
    await manager.arecord_turns([turn(at=NOW + number) for number in range(3)] + [turn("none"), turn(None)])
    assert [each.at.timestamp() for each in (await manager.atrail("conv-123")).turns] == [NOW, NOW + 1, NOW + 2]


@on_redis
def test_trail_counts_when_the_sums_cannot_be_added(call, manager, monkeypatch, caplog):
    call("create", "conv-123", **PROPOSAL)

    def refuse(*args):
        raise SessionStoreUnavailable("gone in between")

    monkeypatch.setattr(usage, "add_commands", refuse)
    assert call("record_turn", turn())
    assert "usage of 1 turns not added: gone in between" in caplog.text
    assert call("trail", "conv-123").totals.turns == 1


@pytest.mark.parametrize(
    ("first_bytes", "share", "bound"),
    [({}, 0.5, None), ({100: 9, 0: 1}, 0.5, 100), ({0: 1, 100: 9}, 0.95, 0), ({50: 1, 100: 1, 250: 2}, 0.75, 250)],
)
def test_first_byte_ms_is_the_bound_below_which_a_share_came(first_bytes, share, bound):
    assert first_byte_ms(first_bytes, share) == bound
