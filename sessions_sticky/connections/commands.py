"""Redis commands and scripts as data; performs no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
ReplyT = TypeVar("ReplyT")
ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class Request(Generic[ReplyT_co]):
    """A request to a store, whose reply is a `ReplyT_co`."""

    __slots__ = ()


@dataclass(slots=True)
class Command(Request[ReplyT_co]):
    """A Redis command with its arguments."""

    args: tuple[Any, ...]


@dataclass(slots=True)
class ScriptCall(Command[ReplyT_co]):
    """The call of a cached Lua script by its SHA-1."""

    script: Script
    keys: Sequence[str | bytes]
    argv: tuple[Any, ...]

    @property
    def with_source(self) -> Command[ReplyT_co]:
        """The same call for a server that has not cached the script."""
        return Command(("EVAL", self.script.source, *self.args[2:]))


@dataclass(slots=True)
class Batch(Request[list[Any]]):
    """Commands that are sent together without a transaction. An error replaces the reply of a failed command."""

    commands: Sequence[Command[Any]]


@dataclass(slots=True)
class AllPrimaries(Request[list[Any]]):
    """A command for every server that holds data: one, or each primary of a Redis Cluster."""

    command: Command[Any]


RedisRequest = Command[Any] | Batch | AllPrimaries


class Send(Protocol):
    """A function that sends a request and returns the reply."""

    def __call__(self, request: Request[ReplyT], /) -> Awaitable[ReplyT]:
        """Send."""


class Script:
    """A Lua script composed of files in `stores/lua/`."""

    def __init__(self, *names: str) -> None:
        self.names = names
        folder = resources.files("sessions_sticky").joinpath("stores", "lua")
        self.source = "\n".join(folder.joinpath(f"{name}.lua").read_text() for name in names)
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str | bytes], *argv: Any) -> ScriptCall[Any]:
        """Return a call of the script."""
        return ScriptCall(("EVALSHA", self.sha, len(keys), *keys, *argv), self, keys, argv)

    @property
    def load(self) -> Command[bytes]:
        """The command that loads the script."""
        return Command(("SCRIPT", "LOAD", self.source))


def run(coroutine: Coroutine[Any, Any, ReplyT]) -> ReplyT:
    """Run a coroutine that never suspends, because it sends with blocking calls; return its result."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise RuntimeError("a coroutine that sends in blocking calls must not suspend")


def unsuspended(call: Callable[P, ReplyT]) -> Callable[P, Coroutine[Any, Any, ReplyT]]:
    """Return a blocking function as a coroutine function that never suspends, for `run`."""

    async def coroutine(*args: P.args, **kwargs: P.kwargs) -> ReplyT:
        return call(*args, **kwargs)

    return coroutine
