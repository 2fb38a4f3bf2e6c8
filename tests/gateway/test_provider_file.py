"""The file of providers changes while the gateway serves."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sentinel_project.gateway.providers import current
from sentinel_project.gateway.providers.current import providers, watch_forever
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.file import load_providers
from sentinel_project.gateway.providers.slots import Failure
from sentinel_project.gateway.routing import process
from tests.gateway.asgi import Call, ask, chat
from tests.gateway.fleet import UVICORN, Fleet
from tests.gateway.live import provider_entry
from tests.gateway.load import Clients, bindings, failed, tell
from tests.gateway.upstream_process import UpstreamProcess
from tests.gateway.upstreams import Exchange, Upstream
from tests.servers import start_server
from tests.waiting import until, wait_until

if TYPE_CHECKING:
    from pytest_django import Settings

NAMES = ("north", "south", "east")


def configuration(urls: dict[str, str], **weights: float) -> str:
    return "".join(provider_entry(name, url, weight=weights.get(name, 1)) for name, url in urls.items())


def replace(file: Path, text: str) -> None:
    """Write a file as a careful operator does: whole, at once."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


def names() -> list[str]:
    return [provider.name for provider in providers()]


@pytest.fixture
def urls(north: Upstream, south: Upstream) -> dict[str, str]:
    return {"north": north.url, "south": south.url}


@pytest.fixture
async def file(
    gateway: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, urls: dict[str, str]
) -> AsyncIterator[Path]:
    """The file that the gateway was started with, watched."""
    monkeypatch.setattr(current, "_reloaded", [])
    monkeypatch.setattr(current, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(current, "SETTLE_SECONDS", 0.3)
    file = tmp_path / "providers.toml"
    file.write_text(configuration(urls))
    gateway.SENTINEL_PROVIDERS = load_providers(str(file))
    watching = asyncio.create_task(watch_forever(str(file), process.forget))
    yield file
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the watch logs."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(f"{record.levelname} {record.getMessage()}")
    logger = logging.getLogger(current.__name__)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.mark.slow
@pytest.mark.parametrize("write", [Path.write_text, replace], ids=["written", "moved into place"])
async def test_change_is_loaded_and_logged_when_the_file_is_written(file, urls, said, write):
    before = providers()
    write(file, configuration({"south": urls["south"], "east": urls["north"]}, south=2))
    await until(lambda: names() == ["south", "east"])
    assert said == ["INFO providers reloaded: new east; gone north; changed south"]
    assert [provider.weight for provider in providers()] == [2, 1]
    assert [provider.name for provider in before] == ["north", "south"]  # what a request under way holds stays


@pytest.mark.slow
async def test_change_is_taken_over_when_the_file_moved_into_place_is_older(file, urls):
    new = file.with_suffix(".prepared")
    new.write_text(configuration({"south": urls["south"]}))
    os.utime(new, (1, 1))
    new.rename(file)
    await until(lambda: names() == ["south"])


@pytest.mark.slow
async def test_nothing_is_logged_when_the_file_is_unchanged(file, urls, said):
    replace(file, "# a comment\n" + configuration(urls))
    await asyncio.sleep(0.5)
    assert said == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[provider", "line 1: the file must be TOML: "),
        ("", "the file must have a table [[provider]]"),
        ('[[provider]]\nname = "north"\nbase_url = "ftp://host"\nmodels = ["m"]\n', "not 'ftp://host'"),
        (
            '[[provider]]\nname = "north"\nbase_url = "http://host"\nmodels = ["m"]\napi_key_env = "NOT_SET"\n',
            'line 5: [[provider]] number 1 "north": api_key_env must be the name of an environment variable ',
        ),
        (None, "No such file or directory"),
    ],
)
async def test_providers_stay_with_a_logged_reason_when_the_file_is_invalid(file, urls, said, text, reason):
    file.unlink() if text is None else replace(file, text)
    await until(lambda: said)
    await asyncio.sleep(0.2)  # ten more checks of the file
    (line,) = said
    assert line.startswith(f"ERROR providers not reloaded, their file is invalid: {file}")
    assert reason in line
    assert names() == ["north", "south"]
    replace(file, configuration({"south": urls["south"]}))  # and it continues from there
    await until(lambda: names() == ["south"])


@pytest.mark.slow
async def test_nothing_is_applied_before_the_file_is_completely_written(file, urls, said):
    with file.open("w") as written:
        for entry in (configuration({name: url}) for name, url in {**urls, "east": urls["north"]}.items()):
            written.write(entry)
            written.flush()
            await asyncio.sleep(0.2)
            assert names() == ["north", "south"]
    await until(lambda: names() == ["north", "south", "east"])
    assert len(said) == 1


@pytest.mark.slow
async def test_conversations_stay_when_weights_change_and_a_provider_comes(file, urls):
    ids = [f"conv-{number}" for number in range(20)]
    before = {each: (await ask(chat(conversation_id=each))).headers["x-session-provider"] for each in ids}
    assert set(before.values()) == {"north", "south"}
    replace(file, configuration({**urls, "east": urls["north"]}, north=0, south=0, east=1000))
    await until(lambda: names() == ["north", "south", "east"])
    for each in ids:
        answer = await ask(chat(conversation_id=each))
        assert (answer.headers["x-session-outcome"], answer.headers["x-session-provider"]) == ("hit", before[each])
    assert (await ask(chat(conversation_id="new"))).headers["x-session-provider"] == "east"


@pytest.mark.slow
async def test_only_conversations_of_a_provider_that_goes_are_moved_and_with_the_reason(file, urls):
    ids = [f"conv-{number}" for number in range(20)]
    before = {each: (await ask(chat(conversation_id=each))).headers["x-session-provider"] for each in ids}
    replace(file, configuration({"south": urls["south"]}))
    await until(lambda: names() == ["south"])
    for each in ids:
        headers = (await ask(chat(conversation_id=each))).headers
        assert headers["x-session-provider"] == "south"
        assert headers["x-session-outcome"] == ("hit" if before[each] == "south" else "rebound")
        if before[each] == "north":
            assert headers["x-session-reason"] == "provider not configured for the model"


ENDPOINTS = {
    "url": lambda text, north: text.replace(north.url, f"{north.url}/new"),
    "key": lambda text, north: text.replace("models", 'api_key_env = "NEW_KEY"\nmodels', 1),
    "header": lambda text, north: text.replace("models", 'headers = { x-account = "2" }\nmodels', 1),
    "auth": lambda text, north: text.replace("models", 'api_key_env = "KEY"\nauth = "x-api-key"\nmodels', 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ENDPOINTS)
async def test_provider_is_tried_at_once_when_its_endpoint_changes(
    file, urls, said, monkeypatch: pytest.MonkeyPatch, north: Upstream, what: str
):
    for name in ("KEY", "NEW_KEY"):
        monkeypatch.setenv(name, name)
    for cools in (Cools.PROVIDER, Cools.ACCOUNT, Cools.MODEL):
        process.health.failed("north", "model-a", Failure(cools, retry_after=300))
    process.health.record_pace("north", is_slow=True)
    assert process.health.is_cooling("north", "model-a")
    replace(file, ENDPOINTS[what](file.read_text(), north))
    await until(lambda: said)
    assert not process.health.states.get("north")


@pytest.mark.slow
async def test_provider_continues_cooling_when_its_weight_changes(file, urls, said):
    process.health.failed("north", "model-a", Failure(Cools.PROVIDER))
    replace(file, configuration(urls, north=3))
    await until(lambda: said)
    await asyncio.sleep(0.1)
    assert process.health.is_cooling("north", "model-a")


@pytest.mark.slow
async def test_new_endpoint_is_not_blamed_when_a_request_to_the_old_one_fails_later(file, urls, said, north: Upstream):
    north.then(Exchange.wait_until_left)
    running = [Call(chat(conversation_id=f"conv-{number}")) for number in range(8)]
    tasks = [call.start() for call in running]
    await until(lambda: north.exchanges)
    held = north.exchanges[0]
    replace(file, configuration({**urls, "north": urls["north"] + "/new"}))
    await until(lambda: said)
    held.send(429, b"", Retry_After="300")
    held.cut()
    await asyncio.gather(*tasks)
    assert not process.health.failing()


@pytest.mark.slow
async def test_models_are_those_of_the_file_when_it_changes(file, urls):
    replace(file, configuration({"south": urls["south"]}).replace("model-b", "model-c"))
    await until(lambda: names() == ["south"])
    assert [each["id"] for each in (await ask(path="/v1/models", method="GET")).json["data"]] == ["model-a", "model-c"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
async def test_nothing_fails_or_moves_without_a_reason_when_the_file_changes_under_load(
    tmp_path: Path,
) -> None:
    """Two workers; the worker that loads a new provider first must not make the other one move its conversations."""
    file, ids = tmp_path / "providers.toml", [f"conv-{number}" for number in range(60)]
    with UpstreamProcess(*NAMES) as upstreams, start_server() as store:
        two = {name: upstreams.urls[name] for name in NAMES[:2]}
        file.write_text(configuration(two))
        variables = {"REDIS_URL": store.url, "SENTINEL_PROVIDERS": str(file)}
        with Fleet(tmp_path, 2, program=UVICORN, **variables) as fleet:
            async with Clients([fleet.url], fleet.key) as clients:
                before = bindings(await clients.visit(ids))
                replace(file, configuration(upstreams.urls, north=0, south=0))
                begun = [f"begun-{number}" for number in range(200)]
                replies = await clients.load([*ids, *begun], seconds=6, rate=120)
                known = await clients.visit([*ids, *begun])
                assert {reply.outcome for reply in replies} == {"hit", "created"}
                assert {reply.outcome for reply in known} == {"hit"}
                assert not [
                    reply for reply in known if reply.binding != before.get(reply.conversation_id, reply.binding)
                ]
                assert {reply.provider for reply in known if reply.conversation_id not in before} >= {"east"}
                replace(file, configuration({"east": upstreams.urls["east"]}))
                gone = await clients.load(ids, seconds=4, rate=120, one_at_a_time=True)
            assert not failed([*replies, *known, *gone])
            met = {(reply.outcome, reply.reason) for reply in gone}
            assert met == {("hit", ""), ("rebound", "provider not configured for the model")}
            assert {reply.provider for reply in gone[-100:]} == {"east"}
            wait_until(lambda: fleet.log.read_text().count("providers reloaded: gone north, south") == 2)
    tell("providers changed", [*replies, *gone])
