"""The slot map of a Redis Cluster, and the exchange of commands with its nodes; performs no I/O.

redis-py's cluster clients are not used for chats. After an error in a pipeline they repeat its commands one by one,
each with the full timeout. The asynchronous one sends ASKING and its command on different connections, and disconnects
all other callers when a slot is down.
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
"""Maximum number of redirects of a command: its slot may move while the command is in flight."""
REFRESH_SECONDS = 1.0
"""Minimum interval between refreshes of the slot map."""

REDIRECTS = (AskError, NoScriptError, TryAgainError)  # MovedError is an AskError
FAILURES = (RedisError, OSError, SessionStoreUnavailable)
"""Errors in the place of a reply: a server's error, a timeout, or an open circuit breaker."""
ASKING: Command[bytes] = Command(("ASKING",))
CLUSTER_SLOTS: Command[list[Any]] = Command(("CLUSTER", "SLOTS"))


class At(NamedTuple):
    """A command for one server, regardless of its keys."""

    address: Address
    command: Command[Any]


CommandsByNode = dict[Address, list[Command[Any]]]
Answers = dict[Address, list[Any]]
"""Replies to `CommandsByNode`; an error replaces the reply of a failed command."""


class Slots:
    """The known nodes of slots; `seeds` are asked while none is known."""

    def __init__(self, seeds: Sequence[Address]) -> None:
        self.primaries: list[Address] = []
        """The known servers that hold slots, sorted."""
        self._seeds = list(seeds)
        self._nodes: list[Address | None] = [None] * SLOTS
        self._is_stale = False
        self._asked_at = 0.0
        self._failed_at: dict[Address, float] = {}

    def mark_stale(self) -> None:
        """Request a refresh: a server did not answer, or a slot has moved."""
        self._is_stale = True

    def refresh_candidates(self) -> Sequence[Address]:
        """Return the servers to ask for a refresh, in order; none if no refresh is due."""
        now = time.monotonic()
        if self.primaries and not (self._is_stale and now - self._asked_at >= REFRESH_SECONDS):
            return ()
        self._asked_at = now
        known = dict.fromkeys([*self.primaries, *self._seeds])
        return sorted(known, key=lambda address: self._failed_at.get(address, 0.0))

    def deprioritize(self, address: Address) -> None:
        """Ask this server last until a refresh succeeds, so that one dead server cannot block the others."""
        self._failed_at[address] = time.monotonic()  # also after servers that failed earlier: one may be back

    def read(self, reply: Sequence[Any], source: Address) -> None:
        """Update the map from the reply of `source` to `CLUSTER_SLOTS`."""
        nodes: list[Address | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_ in reply:
            nodes[first : last + 1] = [_address(host, port, source)] * (last + 1 - first)
        self._nodes, self._is_stale, self._failed_at = nodes, False, {}
        self.primaries = sorted({node for node in nodes if node})

    def moved(self, error: MovedError, source: Address) -> None:
        """Record that a slot has moved to another server."""
        self._nodes[error.slot_id] = _address(error.host, error.port, source)
        self.mark_stale()

    def node_for(self, command: Command[Any] | At) -> Address | None:
        """Return the server of a command's first key (all its keys share a slot); None if the slot has no server."""
        if isinstance(command, At):
            return command.address
        key = command.args[1]
        if isinstance(command, ScriptCall):
            key = command.keys[0] if command.keys else keys.index_all()  # without a key any server can run it
        return self._nodes[key_slot(key if isinstance(key, bytes) else key.encode())]


def exchange(commands: Sequence[Command[Any] | At], slots: Slots) -> Generator[CommandsByNode, Answers, list[Any]]:
    """Send commands to the servers of their keys, follow redirects, and return the replies."""
    replies: list[Any] = [None] * len(commands)
    waiting = list(range(len(commands)))
    for _ in range(MAX_HOPS):
        positions: dict[Address, list[int]] = defaultdict(list)
        for at in waiting:
            if (address := _destination(commands[at], replies[at], slots)) is None:
                replies[at] = RedisConnectionError("no known cluster node holds the slot of the key")
            else:
                positions[address].append(at)
        if not positions:
            return replies
        batches = {address: [_to_send(commands[at], replies[at]) for at in here] for address, here in positions.items()}
        answers = yield {address: [*chain(*batch)] for address, batch in batches.items()}
        for address, here in positions.items():
            answer = iter(answers[address])
            for at, batch_part in zip(here, batches[address], strict=True):
                *_, replies[at] = islice(answer, len(batch_part))
                if isinstance(replies[at], MovedError):
                    slots.moved(replies[at], address)
                elif _is_ask(replies[at]):
                    replies[at].host, _ = _address(replies[at].host, replies[at].port, address)
        waiting = [at for at in waiting if isinstance(replies[at], REDIRECTS)]
        if not waiting:
            return replies
    for at in waiting:
        replies[at] = ResponseError("the slots of the cluster keep moving")
    return replies


def _destination(command: Command[Any] | At, reply: Any, slots: Slots) -> Address | None:
    return (reply.host, reply.port) if _is_ask(reply) else slots.node_for(command)


def _to_send(command: Command[Any] | At, reply: Any) -> list[Command[Any]]:
    """Return the commands to send after a redirect: the command, with ASKING before it if needed."""
    bare = command.command if isinstance(command, At) else command
    if isinstance(reply, NoScriptError) and isinstance(bare, ScriptCall):
        return [bare.script.load, bare]
    return [ASKING, bare] if _is_ask(reply) else [bare]


def _is_ask(reply: Any) -> bool:
    return isinstance(reply, AskError) and not isinstance(reply, MovedError)  # it is a subclass


def _address(host: bytes | str | None, port: int, source: Address) -> Address:
    """Return a server's address; a server without a known host name is `source`."""
    name = host.decode() if isinstance(host, bytes) else host
    return (name if name and name != "?" else source[0]), port
