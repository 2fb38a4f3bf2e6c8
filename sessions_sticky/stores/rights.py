"""The rights that the Redis user of the app needs, and those that it lacks. docs/how-to/redis-user.md lists them."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
from django_redis.cache import RedisCache

from sessions_sticky import keys
from sessions_sticky.connections.cluster.client import RedisCluster
from sessions_sticky.connections.commands import AllPrimaries, Script
from sessions_sticky.stores.base import Store

RIGHTS = Script("rights")

ON_KEYS: dict[str, tuple[Any, ...]] = {
    "del": (),
    "exists": (),
    "expire": (1,),
    "get": (),
    "getex": (),
    "hgetall": (),
    "hincrby": ("field", 1),
    "incr": (),
    "lpop": (),
    "lpush": ("value",),
    "lrange": (0, 0),
    "ltrim": (0, 0),
    "mget": (),
    "pexpire": (1,),
    "pttl": (),
    "rpush": ("value",),
    "set": ("value",),
    "type": (),
    "xadd": ("*", "field", "value"),
    "xrange": ("-", "+"),
    "xrevrange": ("+", "-"),
    "zadd": (0, "member"),
    "zcard": (),
    "zcount": (0, 0),
    "zrangebyscore": (0, 0),
    "zrem": ("member",),
    "zremrangebyscore": (0, 0),
    "zrevrange": (0, 0),
    "zscan": (0,),
    "zscore": ("member",),
}
"""Commands on a key, with the arguments that follow it. MGET is for the gateway, which uses Django's cache as well."""

WITHOUT_KEY: dict[str, tuple[Any, ...]] = {
    "dbsize": ("dbsize",),
    "eval": ("eval", "", 0),
    "evalsha": ("evalsha", "", 0),
    "scan": ("scan", 0),
    "script|load": ("script", "load", ""),
    "select": ("select", 0),
    "time": ("time",),
}
"""Commands without a key, by the name of their right."""

ON_CLUSTER: dict[str, tuple[Any, ...]] = {"asking": ("asking",), "cluster|slots": ("cluster", "slots")}

FAMILIES = (
    "session:",
    "deleted:",
    "{index}:",
    "history:{index}",
    "trail:",
    "usage:",
    "process:",
    "created:{index}:",
    "job:{index}:",
    "jobs:{index}",
)
"""What the keys of the app begin with, after the prefix."""


def missing(store: Store, cache: RedisCache) -> list[str]:
    """Return the rights to commands (`+get`) and keys (`~sentinel:*`) that the user lacks, as in `ACL SETUSER`.

    Performs none of the commands. Raises `SessionStoreUnavailable` if the server cannot check them: Redis 7 can.
    """
    families = [f"~{keys.prefixed(family)}*" for family in FAMILIES]
    keyless = WITHOUT_KEY | (ON_CLUSTER if RedisCluster.serves(cache) else {})
    calls = {(f"+{right}", ""): call for right, call in keyless.items()}
    for (name, rest), family in product(ON_KEYS.items(), families):
        calls[f"+{name}", family] = (name, family[1:], *rest)
    replies = store.send(AllPrimaries(RIGHTS.call([], *map(msgspec.json.encode, calls.values()))))
    asked = list(calls)
    denied = {asked[number - 1] for reply in replies for number in reply}
    closed = [family for family in families if all((f"+{name}", family) in denied for name in ON_KEYS)]
    commands = {right for right, family in denied if family not in closed}
    return [*sorted(commands), *([f"~{keys.prefixed('*')}"] if closed == families else closed)]
