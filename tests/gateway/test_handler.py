"""Requests end with their clients."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from sentinel_project.gateway import endpoint, handler
from tests.gateway.asgi import Call, chat
from tests.waiting import until

if TYPE_CHECKING:
    from pytest_django import Settings


@pytest.mark.parametrize("lost", [0, 1, 3])
async def test_request_ends_with_its_client_when_cancellations_are_lost(
    gateway: Settings, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    begun = asyncio.Event()

    async def loses(call: object) -> str:
        begun.set()
        for _ in range(lost):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        await asyncio.sleep(60)
        return "ann"

    monkeypatch.setattr(handler, "RECANCEL_SECONDS", 0.01)
    monkeypatch.setattr(endpoint, "admit", loses)
    call = Call(chat())
    task = call.start()
    await begun.wait()
    call.leave()
    await until(task.done)
