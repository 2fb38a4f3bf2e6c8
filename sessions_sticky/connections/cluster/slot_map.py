"""Who holds which keys of a Redis Cluster, and sending commands there; pure.

redis-py's own cluster clients are not used on the chat path: after an error in a pipeline they send its commands again
one by one, each with the whole timeout; the asynchronous one sends ASKING and the command that it is for on different
connections, and hangs up on all other callers when a slot is down.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, NoScriptError, RedisError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from sessions_sticky import keys
from sessions_sticky.connections.commands import Command, ScriptCall
from sessions_sticky.connections.url import Address
from sessions_sticky.exceptions import SessionStoreUnavailable

SLOTS = 16_384
MAX_HOPS = 8
"""How often a command is sent on: its slot may be moving while it is under way."""
REFRESH_SECONDS = 1.0
"""How often, at most, the cluster is asked who holds what."""

SENT_ON = (AskError, NoScriptError, TryAgainError)  # MovedError is an AskError
FAILURES = (RedisError, OSError, SessionStoreUnavailable)
"""What takes the place of a reply: a server's error, none in time, or an open circuit breaker."""
ASKING: Command[bytes] = Command(("ASKING",))
CLUSTER_SLOTS: Command[list[Any]] = Command(("CLUSTER", "SLOTS"))


class At(NamedTuple):
    """A command for one server, whatever its keys."""

    address: Address
    command: Command[Any]


Parcels = dict[Address, list[Command[Any]]]
Answers = dict[Address, list[Any]]
"""Replies to `Parcels`; an error stands in the place of the command that met it."""


class Slots:
    """Who holds which of the slots, as far as is known; `seeds` are asked as long as nothing is."""

    def __init__(self, seeds: Sequence[Address]) -> None:
        self.primaries: list[Address] = []
        """The servers that hold slots, sorted; empty as long as nothing is known."""
        self._seeds = list(seeds)
        self._holders: list[Address | None] = [None] * SLOTS
        self._is_stale = False
        self._asked_at = 0.0
        self._last: dict[Address, float] = {}

    def doubt(self) -> None:
        """Ask again when there is time: a server did not answer, or a slot has moved."""
        self._is_stale = True

    def to_ask(self) -> Sequence[Address]:
        """Return whom to ask who holds what, now, until one has answered; nobody while what is known will do."""
        now = time.monotonic()
        if self.primaries and not (self._is_stale and now - self._asked_at >= REFRESH_SECONDS):
            return ()
        self._asked_at = now
        return sorted(dict.fromkeys([*self.primaries, *self._seeds]), key=lambda address: self._last.get(address, 0.0))

    def ask_last(self, address: Address) -> None:
        """Ask this server after all others, until one has answered: who asks it first may never come to them."""
        self._last[address] = time.monotonic()  # after those, too, that failed before: one may be back by now

    def read(self, reply: Sequence[Any], asked: Address) -> None:
        """Take in what the server `asked` says of `CLUSTER_SLOTS`."""
        holders: list[Address | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_ in reply:
            holders[first : last + 1] = [_address(host, port, asked)] * (last + 1 - first)
        self._holders, self._is_stale, self._last = holders, False, {}
        self.primaries = sorted({holder for holder in holders if holder})

    def moved(self, error: MovedError, asked: Address) -> None:
        """Take in that a slot is held by another server."""
        self._holders[error.slot_id] = _address(error.host, error.port, asked)
        self.doubt()

    def holder(self, command: Command[Any] | At) -> Address | None:
        """Return who is to get a command: by its first key, for they all lie in one slot; None for a slot of nobody."""
        if isinstance(command, At):
            return command.address
        key = command.args[1]
        if isinstance(command, ScriptCall):
            key = command.keys[0] if command.keys else keys.index_all()  # without a key any server will do
        return self._holders[key_slot(key if isinstance(key, bytes) else key.encode())]


def exchange(commands: Sequence[Command[Any] | At], slots: Slots) -> Generator[Parcels, Answers, list[Any]]:
    """Send commands to those who hold their keys, and on to others where slots have moved; return the replies."""
    replies: list[Any] = [None] * len(commands)
    waiting = list(range(len(commands)))
    for _ in range(MAX_HOPS):
        places: dict[Address, list[int]] = defaultdict(list)
        for at in waiting:
            if (address := _destination(commands[at], replies[at], slots)) is None:
                replies[at] = RedisConnectionError("nobody of the cluster is known to hold the slot of the key")
            else:
                places[address].append(at)
        if not places:
            return replies
        parcels = {address: [_packed(commands[at], replies[at]) for at in here] for address, here in places.items()}
        answers = yield {address: [*chain(*parcel)] for address, parcel in parcels.items()}
        for address, here in places.items():
            answer = iter(answers[address])
            for at, packed in zip(here, parcels[address], strict=True):
                *_, replies[at] = islice(answer, len(packed))
                if isinstance(replies[at], MovedError):
                    slots.moved(replies[at], address)
                elif _is_ask(replies[at]):
                    replies[at].host, _ = _address(replies[at].host, replies[at].port, address)
        waiting = [at for at in waiting if isinstance(replies[at], SENT_ON)]
        if not waiting:
            return replies
    for at in waiting:
        replies[at] = ResponseError("the slots of the cluster keep moving")
    return replies


def _destination(command: Command[Any] | At, reply: Any, slots: Slots) -> Address | None:
    return (reply.host, reply.port) if _is_ask(reply) else slots.holder(command)


def _packed(command: Command[Any] | At, reply: Any) -> list[Command[Any]]:
    """Return a command with what has to go before it, after `reply` to its last sending."""
    bare = command.command if isinstance(command, At) else command
    if isinstance(reply, NoScriptError) and isinstance(bare, ScriptCall):
        return [bare.script.load, bare]
    return [ASKING, bare] if _is_ask(reply) else [bare]


def _is_ask(reply: Any) -> bool:
    return isinstance(reply, AskError) and not isinstance(reply, MovedError)  # which is a subclass


def _address(host: bytes | str | None, port: int, asked: Address) -> Address:
    """Return a server's address; one that does not know its own name is the one that was asked."""
    name = host.decode() if isinstance(host, bytes) else host
    return (name if name and name != "?" else asked[0]), port
