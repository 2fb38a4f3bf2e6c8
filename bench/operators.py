"""Latency of operators' pages, statistics, bulk changes and reindex, and the stalls they cause for other clients.

    python bench/operators.py                       # 10,000 and 1,000,000 sessions, on a Redis (or Valkey) of its own
    python bench/operators.py 10000 100000          # other numbers
    python bench/operators.py valkey 10000          # on the Valkey of the wheel, whatever is installed

5 providers, 10 models, 100,000 owners. The API is asked in the process, through the whole of Django, with the token of
an operator whose permissions are those of a group, and once over HTTP at a uvicorn worker. While each thing is done
another process asks Redis for a key every millisecond: "worst stall" is the longest it waited. On a shared machine it
waits now and then when nothing at all is done: that is in the table, too.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PROVIDERS = [f"provider-{n}" for n in range(5)]
MODELS = [f"model-{n}" for n in range(10)]
OWNERS = 100_000
TTL_SECONDS = 86_400
CALLS = 200
PAGES: dict[str, dict[str, str]] = {
    "all": {},
    "provider": {"provider": PROVIDERS[1]},
    "model": {"model": MODELS[1]},
    "provider and model": {"provider": PROVIDERS[1], "model": MODELS[0]},
    "owner": {"owner": "user-00001"},
    "owner and provider": {"owner": "user-00001", "provider": PROVIDERS[1]},
}
DEPTHS = {"first page": 0.0, "half-way": 0.5, "nearly last": 0.99}


def main(sizes: list[int], *, valkey: bool) -> None:
    """Measure and print a table with a column for each size."""
    from tests.servers import VALKEY, start_server

    results: list[dict[str, str]] = []
    program = (None if valkey else shutil.which("redis-server")) or VALKEY
    with tempfile.TemporaryDirectory() as folder, start_server(program) as server:
        os.environ |= {"REDIS_URL": server.url, "SENTINEL_DATA_DIR": folder}
        os.environ["DJANGO_SETTINGS_MODULE"] = "bench.operator_settings"
        token = _set_up()
        for size in sizes:
            results.append(_measure(size, token))
            print(f"{size:,} done", file=sys.stderr)
    print("| | " + " | ".join(f"{size:,} sessions" for size in sizes) + " |")
    print("| --- |" + " --- |" * len(sizes))
    for name in results[-1]:
        print(f"| {name} | " + " | ".join(result.get(name, "") for result in results) + " |")


def _set_up() -> str:
    """Make the database of the gateway; return the token of an operator."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    django.setup()
    from django.contrib.auth.models import Group, Permission, User
    from rest_framework.authtoken.models import Token

    settings.CACHES["default"]["OPTIONS"] |= {"SOCKET_TIMEOUT": 5}
    call_command("migrate", verbosity=0)
    group, operator = Group.objects.create(name="operators"), User.objects.create_user("operator")
    group.permissions.set(Permission.objects.filter(content_type__app_label="sessions_sticky"))
    operator.groups.add(group)
    return str(Token.objects.create(user=operator).key)


def _measure(size: int, token: str) -> dict[str, str]:
    from django.core.cache import cache

    from sessions_sticky import keys, sessions

    client = cache.client.get_client(write=True)
    client.flushdb()
    empty = _used_bytes(client)
    _fill(client, size)
    alone = _used_bytes(client) - empty
    result = {}

    def timed(name: str, call: Callable[[], Any]) -> tuple[Any, float]:
        with _watching() as stall:
            started = time.perf_counter()
            value = call()
            seconds = time.perf_counter() - started
        result[f"{name}: worst stall"] = f"{stall[0]:.1f} ms"
        return value, seconds

    timed("nothing, for 10 s", lambda: time.sleep(10))
    found, seconds = timed("reindex", sessions.reindex)
    assert found == sessions.all().count() == size
    result["reindex, nothing indexed before"] = f"{seconds:.1f} s"
    result["memory, index included"] = f"{(_used_bytes(client) - empty) / size:.0f} bytes/session"
    result["memory, sessions alone"] = f"{alone / size:.0f} bytes/session"
    result["owners, each with a key in the index"] = f"{min(size, OWNERS):,}"
    _, seconds = timed("reindex again", sessions.reindex)
    result["reindex, nothing to do"] = f"{seconds:.1f} s"
    get = _in_process()
    for name, filters in PAGES.items():
        for depth, share in DEPTHS.items():
            cursor = _cursor(client, filters, share) if share else {}
            if cursor is not None:
                path = f"/api/sessions/?{urlencode({'limit': 50, **filters, **cursor})}"
                result[f"page of 50, {name}, {depth}"] = f"{_median_ms(get, path, token):.1f} ms"
    with _worker() as get_over_http:
        result["page of 50, all, first page, over HTTP"] = (
            f"{_median_ms(get_over_http, '/api/sessions/', token):.1f} ms"
        )
    result["statistics, API"] = f"{_median_ms(get, '/api/sessions/stats/', token):.1f} ms"
    result["statistics, manager"] = f"{_median_ms(lambda path, token: sessions.stats(), '', ''):.1f} ms"
    for name, call in {
        "rebind by filter": lambda: sessions.filter(provider=PROVIDERS[1]).rebind(
            to_provider=PROVIDERS[2], reason="bench"
        ),
        "delete by filter": lambda: sessions.filter(provider=PROVIDERS[0]).delete(),
    }.items():
        number, seconds = timed(name, call)
        assert number == size / len(PROVIDERS)
        result[name] = f"{number / seconds:,.0f} sessions/s"
    assert sessions.all().count() == size - size / len(PROVIDERS)
    events = client.memory_usage(keys.history(), samples=0) / client.xlen(keys.history())
    result["history, 10,000 events at most"] = f"{events:.0f} bytes/event"
    return result


def _used_bytes(client: Any) -> int:
    return int(client.info("memory")["used_memory"])


def _fill(client: Any, size: int) -> None:
    """Write sessions as another program would, unknown to the index."""
    from sessions_sticky import Session, keys

    random.seed(1)
    now = int(time.time())
    for first in range(0, size, 1000):
        pipeline = client.pipeline(transaction=False)
        for number in range(first, min(first + 1000, size)):
            age = random.randrange(TTL_SECONDS * 1000 // 2)
            session = Session(
                str(uuid.UUID(int=random.getrandbits(128))),
                PROVIDERS[number % 5],
                MODELS[number // 5 % 10],
                f"user-{number % OWNERS:05d}",
                now - age // 1000,
            )
            pipeline.set(keys.session(session.id), session.to_json(), px=TTL_SECONDS * 1000 - age)
        pipeline.execute()


def _cursor(client: Any, filters: dict[str, str], share: float) -> dict[str, str] | None:
    """Return the parameter for a page that deep, where there are so many."""
    from sessions_sticky import keys, sessions
    from sessions_sticky.queries.filters import Filters
    from sessions_sticky.queries.pages import Cursor

    matching = Filters(**filters)
    number = sessions.all().filter(**matching.fields).count()
    if "owner" in filters or number < 100:
        return None
    rank = int(sessions.all().count() * min(share, 1 - 60 / number))  # a whole page is to be left
    ((member, score),) = client.zrevrange(keys.index_all(), rank, rank, withscores=True)
    at = Cursor(matching.indexed, f"{score:.0f}", member.decode())
    return {"cursor": str(at)}


def _median_ms(get: Callable[[str, str], Any], path: str, token: str) -> float:
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        get(path, token)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def _in_process() -> Callable[[str, str], Any]:
    """Return a function that gets a path of the API in this process."""
    from django.test import Client

    client = Client(SERVER_NAME="localhost")

    def get(path: str, token: str) -> Any:
        answer = client.get(path, headers={"authorization": f"Token {token}"})
        assert answer.status_code == 200, answer.content
        return answer

    return get


@contextmanager
def _worker() -> Iterator[Callable[[str, str], Any]]:
    """Run the gateway; give a function that gets a path of it."""
    from tests.servers import free_port

    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "sentinel_project.asgi:application", "--port", str(port)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen([*command, "--log-level", "error"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def get(path: str, token: str) -> Any:
        connection.request("GET", path, headers={"Authorization": f"Token {token}"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == 200, body
        return body

    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                connection.request("GET", "/healthz")
                connection.getresponse().read()
                break
            except OSError:
                connection.close()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield get
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _watching() -> Iterator[list[float]]:
    """Give a list that holds, in the end, the longest that another client had to wait, in milliseconds."""
    context = multiprocessing.get_context("spawn")
    ready, done, worst = context.Event(), context.Event(), context.Value("d", 0.0)
    process = context.Process(target=watch, args=(os.environ["REDIS_URL"], ready, done, worst))
    process.start()
    ready.wait()
    stall: list[float] = []
    try:
        yield stall
    finally:
        done.set()
        process.join()
        stall.append(worst.value)


def watch(url: str, ready: Any, done: Any, worst: Any) -> None:
    """Ask Redis for a key every millisecond until `done`."""
    import redis

    with suppress(OSError):
        os.nice(-10)  # so that it waits for Redis and not for a core
    with redis.Redis.from_url(url) as client:
        client.get("nothing")
        ready.set()
        while not done.is_set():
            started = time.perf_counter()
            client.get("nothing")
            worst.value = max(worst.value, (time.perf_counter() - started) * 1000)
            time.sleep(0.001)


if __name__ == "__main__":
    given = sys.argv[1:]
    main([int(size) for size in given if size != "valkey"] or [10_000, 1_000_000], valkey="valkey" in given)
