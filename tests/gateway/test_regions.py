"""Two regions, each with a gateway and a Redis of its own; a conversation's id begins with its home region."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import aiohttp
import pytest
import pytest_asyncio

from tests.gateway.asgi import CHAT, chat
from tests.gateway.live import environment, manage
from tests.gateway.proxy import Proxy
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.workers import Workers, providers_file
from tests.servers import start_server

pytestmark = pytest.mark.slow

REGIONS = ("eu", "us")
NAMES = ("north", "south", "east")
DELAY_SECONDS = 0.08
"""A round trip between Frankfurt and Virginia."""
EU = [f"eu-{number}" for number in range(20)]


class Edge:
    """What stands before the gateway of one region: it sends each request to the gateway of the conversation's home.

    Without a link there it asks its own.
    """

    def __init__(self, region: str, urls: dict[str, str], http: aiohttp.ClientSession) -> None:
        self._region, self._urls, self._http = region, urls, http

    async def ask(self, conversation_id: str) -> tuple[str, str]:
        """Send a chat; return its outcome and its provider."""
        home = conversation_id.partition("-")[0]
        for region in (home, self._region):
            try:
                body = chat(model="model-a", conversation_id=conversation_id)
                async with self._http.post(self._urls[region] + CHAT, json=body) as answer:
                    await answer.read()
                    assert answer.status == 200
                    return answer.headers["X-Session-Outcome"], answer.headers["X-Session-Provider"]
            except aiohttp.ClientError:
                continue
        raise AssertionError(f"{conversation_id} has no gateway")


class Region(NamedTuple):
    """A gateway, and the environment of its commands."""

    workers: Workers
    env: dict[str, str]


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Region]]:
    with ExitStack() as stack:
        upstreams = {name: stack.enter_context(UpstreamProcess(name)) for name in NAMES}
        found = {}
        for region in REGIONS:
            folder = tmp_path_factory.mktemp(region)
            file = providers_file(folder, {name: upstream.urls[name] for name, upstream in upstreams.items()})
            store = stack.enter_context(start_server())
            variables = {"REDIS_URL": store.url, "SENTINEL_PROVIDERS": file}
            workers = stack.enter_context(Workers(folder, 1, **variables))
            found[region] = Region(workers, environment(folder, **variables))
        yield found


@pytest_asyncio.fixture
async def edges(regions: dict[str, Region]) -> AsyncIterator[tuple[Edge, Edge, Proxy]]:
    """The edges of both regions, and the link from the second to the first."""
    urls = {name: region.workers.urls[0] for name, region in regions.items()}
    headers = {"Authorization": f"Bearer {regions['eu'].workers.key}"}
    with Proxy(int(urls["eu"].rpartition(":")[2])) as link:
        link.delay_seconds = DELAY_SECONDS
        async with aiohttp.ClientSession(headers=headers) as http:
            far = {**urls, "eu": f"http://127.0.0.1:{link.port}"}
            yield Edge("eu", urls, http), Edge("us", far, http), link


async def timed(edge: Edge, ids: list[str]) -> tuple[dict[str, tuple[str, str]], float]:
    """Ask once for each conversation; return the replies and the median seconds."""
    replies, seconds = {}, []
    for each in ids:
        began = time.monotonic()
        replies[each] = await edge.ask(each)
        seconds.append(time.monotonic() - began)
    return replies, statistics.median(seconds)


async def test_conversation_has_one_binding_from_both_regions(edges):
    eu, us, _ = edges
    at_home, near = await timed(eu, EU)
    abroad, far = await timed(us, EU)
    assert {outcome for outcome, _ in abroad.values()} == {"hit"}
    assert {each: provider for each, (_, provider) in abroad.items()} == {
        each: provider for each, (_, provider) in at_home.items()
    }
    assert near < DELAY_SECONDS < far
    _, own = await timed(us, [each.replace("eu", "us") for each in EU])
    assert own < DELAY_SECONDS


async def test_conversation_keeps_its_provider_while_its_home_region_is_cut_off(edges):
    eu, us, link = edges
    bound, _ = await timed(eu, EU)
    link.__exit__()
    without, _ = await timed(us, EU)
    assert {provider for _, provider in without.values()} == set(NAMES)
    assert {each: provider for each, (_, provider) in without.items()} == {
        each: provider for each, (_, provider) in bound.items()
    }
    after, _ = await timed(eu, EU)
    assert set(after.values()) == {("hit", provider) for _, provider in bound.values()}


async def test_moved_conversation_is_elsewhere_while_its_home_region_is_cut_off(edges, regions):
    """Only its home knows of the move: what does not hold."""
    eu, us, link = edges
    _, first = await eu.ask("eu-moved")
    target = next(name for name in NAMES if name != first)
    rebind = ("sessions", "rebind", "eu-moved", "--to-provider", target, "--reason", "by hand")
    assert manage(*rebind, env=regions["eu"].env).returncode == 0
    assert await eu.ask("eu-moved") == ("hit", target)
    assert await us.ask("eu-moved") == ("hit", target)
    link.__exit__()
    assert await us.ask("eu-moved") == ("created", first)
    assert await eu.ask("eu-moved") == ("hit", target)
