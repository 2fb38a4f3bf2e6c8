"""Background tasks end with the worker."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from sentinel_project.gateway.handler import cancel


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
