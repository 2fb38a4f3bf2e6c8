from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, NoScriptError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from sessions_sticky.connections.cluster import slot_map
from sessions_sticky.connections.cluster.slot_map import ASKING, MAX_HOPS, REFRESH_SECONDS, At, Slots, exchange
from sessions_sticky.connections.commands import Command
from sessions_sticky.stores import index

ONE, TWO = ("one", 1), ("two", 2)
HALVES = [[0, 8191, [b"one", 1, b"id"], [b"other", 3, b"id"]], [8192, 16383, [b"two", 2, b"id"]]]
LOW, HIGH = Command(("GET", "b")), Command(("GET", "a"))
assert key_slot(b"b") < 8192 <= key_slot(b"a")

Answer = Callable[[tuple[str, int], Command], Any]


@pytest.fixture
def slots() -> Slots:
    slots = Slots([ONE])
    slots.read(HALVES, ONE)
    return slots


def play(commands: list[Command | At], slots: Slots, answer: Answer) -> tuple[list[Any], list[Any]]:
    """Run an exchange with a server that returns the given answers; return the replies and what was sent where."""
    conversation, sent, answers = exchange(commands, slots), [], None
    while True:
        try:
            parcels = conversation.send(answers)  # type: ignore[arg-type]
        except StopIteration as done:
            return done.value, sent
        sent.append({address: list(parcel) for address, parcel in parcels.items()})
        answers = {address: [answer(address, command) for command in parcel] for address, parcel in parcels.items()}


def test_exchange_sends_each_command_to_the_holder_of_its_key_and_keeps_their_order(slots):
    replies, sent = play([HIGH, LOW, At(ONE, HIGH)], slots, lambda address, command: (address, command))
    assert replies == [(TWO, HIGH), (ONE, LOW), (ONE, HIGH)]
    assert sent == [{TWO: [HIGH], ONE: [LOW, HIGH]}]


def test_exchange_routes_a_script_by_its_first_key(slots):
    call = index.drop_entry("a", b"member", "1")
    assert play([call], slots, lambda address, _: address)[0] == [TWO]


def test_exchange_follows_and_learns_when_a_slot_has_moved(slots):
    def answer(address, command):
        return MovedError(f"{key_slot(b'a')} one:1") if address == TWO else b"value"

    assert play([HIGH], slots, answer)[0] == [b"value"]
    assert play([HIGH], slots, answer)[1] == [{ONE: [HIGH]}]
    assert list(slots.refresh_candidates())


def test_exchange_follows_moved_to_the_same_host_when_the_redirect_has_none(slots):
    replies, _ = play(
        [HIGH], slots, lambda address, _: MovedError(f"{key_slot(b'a')} :7") if address == TWO else address
    )
    assert replies == [("two", 7)]


def test_exchange_asks_right_before_the_command_when_its_slot_is_moving(slots):
    def answer(address, command):
        return AskError(f"{key_slot(b'a')} one:1") if address == TWO else command

    replies, sent = play([HIGH, LOW], slots, answer)
    assert replies == [HIGH, LOW]
    assert sent[1] == {ONE: [ASKING, HIGH]}
    assert play([HIGH], slots, answer)[1][0] == {TWO: [HIGH]}  # the slot is still the other's


def test_exchange_follows_ask_to_the_same_host_when_the_redirect_has_none(slots):
    """`cluster-preferred-endpoint-type unknown-endpoint`: an empty host would be this machine."""
    replies, _ = play([HIGH], slots, lambda address, _: AskError(f"{key_slot(b'a')} :7") if address == TWO else address)
    assert replies == [("two", 7)]


def test_exchange_loads_the_script_when_the_server_does_not_know_it(slots):
    call, known = index.drop_entry("a", b"member", "1"), set()

    def answer(address, command):
        known.add(command.args[0])
        return 1 if "SCRIPT" in known else NoScriptError()

    replies, sent = play([call, call], slots, answer)
    assert replies == [1, 1]
    assert [command.args[0] for command in sent[1][TWO]] == ["SCRIPT", "EVALSHA"] * 2


def test_exchange_retries_on_tryagain(slots):
    turns = iter([TryAgainError(), b"value"])
    replies, sent = play([HIGH], slots, lambda *_: next(turns))
    assert (replies, len(sent)) == ([b"value"], 2)


@pytest.mark.parametrize(
    "error", [TryAgainError(), MovedError("15495 one:1"), AskError("15495 one:1"), NoScriptError()]
)
def test_exchange_gives_up_with_a_plain_error_when_the_slots_keep_moving(slots, error):
    command = index.drop_entry("a", b"member", "1")
    (reply,), sent = play([command], slots, lambda *_: error)
    assert len(sent) == MAX_HOPS
    assert type(reply) is ResponseError
    assert "MOVED" not in str(reply).upper()


def test_exchange_leaves_other_errors_to_the_command_that_met_them(slots):
    gone = RedisConnectionError("gone")
    assert play([HIGH, LOW], slots, lambda address, _: gone if address == TWO else b"1")[0] == [gone, b"1"]


def test_exchange_reports_a_slot_without_a_node():
    (reply,), sent = play([HIGH], Slots([ONE]), lambda *_: 1)
    assert isinstance(reply, RedisConnectionError)
    assert sent == []


def test_slots_ask_the_seeds_first_and_then_known_nodes(slots, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(slot_map.time, "monotonic", lambda: now)
    fresh = Slots([("seed", 1)])
    assert list(fresh.refresh_candidates()) == [("seed", 1)]
    fresh.read(HALVES, ("seed", 1))
    assert not list(fresh.refresh_candidates())
    fresh.mark_stale()
    assert not list(fresh.refresh_candidates())
    now += REFRESH_SECONDS
    assert list(fresh.refresh_candidates()) == [ONE, TWO, ("seed", 1)]
    assert fresh.primaries == [ONE, TWO]


def test_slots_ask_a_deprioritized_node_last_until_one_has_answered(slots, monkeypatch):
    monkeypatch.setattr(slot_map, "REFRESH_SECONDS", 0.0)
    slots.mark_stale()
    for address, then in (ONE, [TWO, ONE]), (TWO, [ONE, TWO]):
        slots.deprioritize(address)
        assert list(slots.refresh_candidates()) == then
    slots.deprioritize(ONE)  # again: no node stays first forever
    assert list(slots.refresh_candidates()) == [TWO, ONE]
    slots.read(HALVES, ONE)
    slots.mark_stale()
    assert list(slots.refresh_candidates()) == [ONE, TWO]
    slots.deprioritize(ONE)
    assert list(slots.refresh_candidates()) == [TWO, ONE]
