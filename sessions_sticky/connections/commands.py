"""Redis commands and scripts, as data; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from redis.exceptions import NoScriptError


class Command(NamedTuple):
    """A Redis command with its arguments."""

    args: tuple[Any, ...]


class Batch(NamedTuple):
    """Commands that go out together and are answered together, in no transaction."""

    commands: list[Command]


class Everywhere(NamedTuple):
    """A command for every server that holds data: one, or each primary of a Redis Cluster; the replies are a list."""

    command: Command


Request = Command | Batch | Everywhere


class Script:
    """A Lua script made of files in `stores/lua/`; called by its SHA-1, under which Redis caches it."""

    known: ClassVar[dict[str, Script]] = {}

    def __init__(self, *names: str) -> None:
        self.names = names
        folder = resources.files("sessions_sticky").joinpath("stores", "lua")
        self.source = "\n".join(folder.joinpath(f"{name}.lua").read_text() for name in names)
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        self.known[self.sha] = self

    def call(self, keys: Sequence[str | bytes], *args: Any) -> Command:
        """Return the call of the script on these keys."""
        return Command(("EVALSHA", self.sha, len(keys), *keys, *args))

    @property
    def load(self) -> Command:
        """What makes the script known to a Redis."""
        return Command(("SCRIPT", "LOAD", self.source))

    @classmethod
    def with_source(cls, call: Command, exc: NoScriptError) -> Command:
        """The same call for a Redis that has not seen the script yet, or was restarted since.

        Raises `exc` when the command called no script: then the reply was not meant for it.
        """
        if call.args[0] != "EVALSHA":
            raise exc
        return Command(("EVAL", cls.known[call.args[1]].source, *call.args[2:]))
