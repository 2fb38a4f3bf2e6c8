"""How many sessions were created in each hour of the last day."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from sessions_sticky import SessionManager, keys
from tests.sessions_sticky.indexed import fill, on_real
from tests.sessions_sticky.marks import on_redis

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis


@on_redis
def test_created_per_hour_counts_in_this_hour_what_was_just_created(call: Callable, manager: SessionManager) -> None:
    fill(manager, 3)
    manager.create("conv-9", "mistral", "large", "user-456")
    manager.delete("conv-2")
    hours = call("created_per_hour")
    assert len(hours) == 24
    assert sum(hour.created for hour in hours) == 4
    assert sum(hour.created for hour in hours[-2:]) == 4  # the clock may have struck in between
    assert hours[-1].began_at <= datetime.now(UTC) < hours[-1].began_at + timedelta(hours=1, minutes=1)
    assert [later.began_at - hour.began_at for hour, later in pairwise(hours)] == [timedelta(hours=1)] * 23


@on_real
def test_created_per_hour_leaves_out_what_is_older_or_junk(call: Callable, manager: SessionManager, raw: redis.Redis):
    hour = int(time.time()) // 3600
    for ago, number in ((0, 1), (1, 20), (23, 300), (24, 4_000)):
        raw.hincrby(keys.created("hour", hour - ago), keys.route_name("openai", "gpt-4"), number)
    raw.hset(keys.created("hour", hour - 1), keys.route_name("openai", "gpt-5"), "many")
    raw.set(keys.created("hour", hour - 2), "no hash")
    found = [each.created for each in call("created_per_hour") if each.created]
    assert found in ([300, 20, 1], [20, 1])  # the latter if the hour has changed
