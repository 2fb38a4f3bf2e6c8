"""Providers of one account share prompt caches and encrypted reasoning: spill-over and rebinds prefer them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from sentinel_project.gateway.providers import current
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.routing import process
from tests.gateway.asgi import Call, ask, chat
from tests.gateway.conftest import provider
from tests.gateway.upstreams import Upstream, fails

if TYPE_CHECKING:
    from pytest_django import Settings

    from sentinel_project.gateway.providers.config import Provider

IDS = [f"conv-{number}" for number in range(12)]


@pytest.fixture(autouse=True)
def _no_cooldowns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "health", Health(0, current.providers))


def providers(north: Upstream, south: Upstream, *, account: str) -> tuple[Provider, ...]:
    """Return north, which all conversations are bound to, a sibling that few rank high, and three others."""
    template = provider(south)
    others = [msgspec.structs.replace(template, name=name, account=name, weight=10) for name in ("b", "c", "d")]
    sibling = msgspec.structs.replace(template, name="sibling", account=account, weight=0.01)
    return (provider(north, account="one", weight=1_000_000), *others, sibling)


async def spill(north: Upstream) -> list[Call]:
    """Bind conversations to north, and return their next turns, which it fails."""
    for each in IDS:
        assert (await ask(chat(conversation_id=each))).headers["x-session-provider"] == "north"
    north.then(*[fails(503)] * len(IDS))
    return [await ask(chat(conversation_id=each)) for each in IDS]


@pytest.mark.slow
async def test_spill_over_prefers_a_provider_of_the_same_account(gateway: Settings, north: Upstream, south: Upstream):
    gateway.SENTINEL_PROVIDERS = providers(north, south, account="one")
    answers = await spill(north)
    assert {answer.headers["x-session-provider"] for answer in answers} == {"sibling"}
    assert {answer.headers["x-session-outcome"] for answer in answers} == {"spilled"}


async def test_spill_over_follows_the_ranking_when_no_account_is_shared(gateway: Settings, north, south):
    gateway.SENTINEL_PROVIDERS = providers(north, south, account="two")
    answers = await spill(north)
    assert len({answer.headers["x-session-provider"] for answer in answers} - {"sibling"}) > 1


async def test_spill_over_continues_to_other_accounts_when_all_of_the_account_fail(gateway: Settings, north, south):
    gateway.SENTINEL_PROVIDERS = providers(north, south, account="one")
    south.then(*[fails(503)] * 1)
    answers = await spill(north)
    assert [answer.status for answer in answers] == [200] * len(IDS)
    assert answers[0].headers["x-session-provider"] in {"b", "c", "d"}


async def test_rebind_prefers_a_provider_of_the_same_account(
    gateway: Settings, north: Upstream, south: Upstream, monkeypatch: pytest.MonkeyPatch
):
    gateway.SENTINEL_PROVIDERS = providers(north, south, account="one")
    for each in IDS:
        await ask(chat(conversation_id=each))
    monkeypatch.setattr(process.health, "is_lost", lambda name: name == "north")
    north.then(*[fails(503)] * len(IDS))
    answers = [await ask(chat(conversation_id=each)) for each in IDS]
    assert {answer.headers["x-session-provider"] for answer in answers} == {"sibling"}
    assert {answer.headers["x-session-outcome"] for answer in answers} == {"rebound"}
