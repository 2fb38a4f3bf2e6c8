"""`Alarm`: a time limit like `asyncio.timeout_at`, for many blocks in turn."""

from __future__ import annotations

import asyncio
import time

import pytest

from sentinel_project.gateway.upstream.alarm import Alarm
from tests.waiting import stopwatch


async def test_alarm_raises_timeout_error_when_a_block_takes_too_long() -> None:
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop)
    with pytest.raises(TimeoutError), alarm.at(loop.time() + 0.01):
        await asyncio.sleep(5)
    await asyncio.sleep(0)  # no cancellation is left
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("limits", [(0.02, 0.2), (5, 0.05)])
async def test_alarm_keeps_to_the_last_limit(limits: tuple[float, float]) -> None:
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop)
    with alarm.at(loop.time() + limits[0]):
        await asyncio.sleep(0)
    began, took = time.monotonic(), stopwatch()
    with pytest.raises(TimeoutError), alarm.at(loop.time() + limits[1]):
        await asyncio.sleep(5)
    assert time.monotonic() - began >= limits[1] - 0.005
    assert took() < 2


async def test_alarm_rings_for_no_one_between_blocks() -> None:
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop)
    with alarm.at(loop.time() + 0.01):
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    with alarm.at(loop.time() + 5):
        await asyncio.sleep(0.01)
    alarm.cancel()


async def test_alarm_lets_a_cancellation_of_the_task_pass() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        with Alarm(loop).at(loop.time() + 5):
            await asyncio.sleep(5)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
