"""Tasks in the background survive errors, and end with the worker."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from sentinel_project.gateway import background
from sentinel_project.gateway.background import cancel, keep_running
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.upstream import client, probes
from tests.gateway.conftest import provider
from tests.gateway.upstreams import Upstream
from tests.waiting import until


@pytest.mark.parametrize("lost", [0, 1, 3])
async def test_cancel_ends_tasks_that_lose_cancellations(lost):
    async def work_forever() -> None:
        for _ in range(lost):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        await asyncio.sleep(60)

    tasks = [asyncio.create_task(work_forever()), asyncio.create_task(asyncio.sleep(60))]
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel(tasks), 5)
    assert all(task.cancelled() for task in tasks)


@pytest.mark.parametrize("error", [OSError("disk"), ValueError("a name"), RuntimeError("a pool")])
async def test_keep_running_restarts_a_task_after_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    errors = [error, error]

    async def work() -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(background, "RESTART_SECONDS", 0)
    await asyncio.wait_for(keep_running(work), 5)
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error, error]


async def test_providers_are_probed_after_a_probe_with_an_unexpected_error(
    monkeypatch: pytest.MonkeyPatch, north: Upstream
) -> None:
    answers = iter([ValueError("a bug"), 200, 200])

    async def probe(_: object) -> int:
        answer = next(answers, 200)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(background, "RESTART_SECONDS", 0)
    monkeypatch.setattr(probes, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(client, "probe", probe)
    health, alive = Health(30, lambda: ()), asyncio.Event()
    monkeypatch.setattr(health, "failing", lambda: ["north"])
    monkeypatch.setattr(health, "record_probe", lambda name, is_alive: alive.set())
    task = asyncio.create_task(keep_running(lambda: probes.probe_forever(health, lambda: [provider(north)])))
    await until(alive.is_set)
    await cancel([task])
