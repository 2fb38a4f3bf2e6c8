"""Values that belong under no key of ours, and what they are put under."""

from __future__ import annotations

import pickle
import re
import time
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentinel_project.gateway.providers import health_sync
from sentinel_project.gateway.providers.config import ECHO
from sessions_sticky import keys, stores
from sessions_sticky.jobs.records import done_key
from tests.sessions_sticky.calls import sample
from tests.sessions_sticky.test_session import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

BOUND = {"provider": "echo-one", "model": "echo-small", "owner": "ann"}
"""A session that the gateway without a configuration can serve."""
OBJECT = "resp_1"
"""A response that is stored at a provider, for all that the gateway knows."""
CONTRACT = Path(__file__).parents[2] / "docs" / "interchange.md"

TYPES: dict[str, Callable[[redis.Redis, str], Any]] = {
    "list": lambda raw, key: raw.rpush(key, "junk", b"\xff", ""),
    "set": lambda raw, key: raw.sadd(key, "junk", b"\xff", ""),
    "hash": lambda raw, key: raw.hset(key, mapping={"junk": "junk", b"\xff": b"\xfe", "": ""}),
    "sorted set": lambda raw, key: raw.zadd(key, {"junk": 9e9, b"\xff": inf, "": -inf, "conv-9": 9e9}),
    "stream": lambda raw, key: raw.xadd(key, {"id": "conv-1", "event": "junk", b"\xff": "x" * 2**20}),
    "short stream": lambda raw, key: (
        *(raw.xadd(key, {"junk": "junk"}), raw.xadd(key, {"id": "conv-1", "event": "junk"})),
    ),
}
VALUES = {
    "number": b"7",
    "megabyte": b"x" * 2**20,
    "pickle": pickle.dumps(sample()),
    "bad JSON": b'{"id": ',
    "no UTF-8": b"\xff\xfe",
    "wrong JSON": b'["junk", 7, null, {}]',
    "wrong type": b'{"at": "junk", "failures": [], "state": 7}',
    "empty object": b"{}",
    "deep": b"[" * 100_000,
    "empty": b"",
}

STRUCTURES = tuple(f"sentinel:{name}:" for name in ("{index}", "history", "created", "trail", "usage"))
"""How keys begin under which no string belongs."""
ANY_STRING = ("number", "megabyte")
"""Under such a key Redis refuses each command, whatever the string; its length may still matter."""


def poisons(place: str) -> dict[str, Callable[[redis.Redis, str], Any]]:
    """Return what to put under an empty key, by name; more for a session, whose fields may be wrong."""
    values = VALUES | UNREADABLE if place.startswith(keys.session_prefix()) else VALUES
    if place.startswith(STRUCTURES):
        values = {name: VALUES[name] for name in ANY_STRING}
    return {name: lambda raw, key, value=value: raw.set(key, value) for name, value in values.items()} | TYPES


def documented() -> set[str]:
    """Return the keys that the contract with other programs names."""
    return set(re.findall(r"`(sentinel:(?!sha256)[^`]+?)`", CONTRACT.read_text(encoding="utf-8")))


def targets(*, job: str, user: int) -> dict[str, list[str]]:
    """Return, for each key of the contract, what it is for `conv-1`, and for a job and a user that exist."""
    now = int(time.time())
    route, owner = keys.route(BOUND["provider"], BOUND["model"]), keys.owner(BOUND["owner"])
    return {
        "sentinel:session:{conversation_id}": [keys.session("conv-1")],
        "sentinel:deleted:{conversation_id}": [keys.deleted("conv-1")],
        "sentinel:{index}:all": [keys.index_all()],
        'sentinel:{index}:route:["provider","model"]': [route],
        "sentinel:{index}:owner:{external_id}": [owner],
        "sentinel:{index}:routes": [keys.index_routes()],
        "sentinel:history:{index}": [keys.history()],
        "sentinel:history:{index}:{conversation_id}": [keys.history_of("conv-1")],
        "sentinel:created:{index}:...": [keys.created("minute", now // 60), keys.created("hour", now // 3600)],
        "sentinel:trail:{conversation_id}": [keys.trail("conv-1")],
        "sentinel:usage:minute:...": [keys.usage("minute", now // 60)],
        "sentinel:usage:hour:...": [keys.usage("hour", now // 3600)],
        "sentinel:usage:owners:...": [keys.usage("owners", now // 3600)],
        "sentinel:usage:activity:...": [keys.usage("activity", now // 3600)],
        "sentinel:process:...": [stores.for_alias("default").loss_detector.key],
        "sentinel:job:{index}:...": [keys.job(job), done_key(job), f"{keys.job(job)}:runner"],
        "sentinel:jobs:{index}": [keys.jobs()],
        "sentinel:object:{id}": [f"sentinel:object:{OBJECT}"],
        "sentinel:provider:{name}:{endpoint}": [
            health_sync.key(each) for each in ECHO if each.name == BOUND["provider"]
        ],
        **{
            f"sentinel:provider-{what}:{{name}}": [f"sentinel:provider-{what}:{BOUND['provider']}"]
            for what in ("drain", "hold", "outages")
        },
        "sentinel:throttle:...": [f"sentinel:throttle:{user}:{now // 60 + ahead}" for ahead in (0, 1)],
    }
