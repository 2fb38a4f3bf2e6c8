"""The gateway in this process, over upstreams that speak the APIs as OpenAI and Anthropic do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from sentinel_project.gateway.providers.config import Provider
from tests.clients.upstream import MODELS, Upstream

if TYPE_CHECKING:
    from pytest_django import Settings


def entry(upstream: Upstream, **fields: object) -> Provider:
    """Return an upstream's entry in the gateway's configuration."""
    default = {"models": MODELS, "weight": 1, "apis": ("chat", "responses", "messages"), "account": upstream.name}
    return Provider(
        **{**default, "name": upstream.name, "base_url": upstream.url, "api_key": upstream.api_key, **fields}
    )


@pytest.fixture
def east(gateway: Settings) -> Iterator[Upstream]:
    """One upstream with an account of its own."""
    with Upstream("east") as upstream:
        yield upstream


@pytest.fixture
def west(gateway: Settings) -> Iterator[Upstream]:
    """The other upstream."""
    with Upstream("west") as upstream:
        yield upstream


@pytest.fixture
def both(gateway: Settings, east: Upstream, west: Upstream) -> Settings:
    """The gateway over both; the first turn of a conversation goes to east. Returns the settings to change."""
    gateway.SENTINEL_PROVIDERS = (entry(east), entry(west, weight=1e-6))
    return gateway


@pytest.fixture
def only_east(gateway: Settings, east: Upstream) -> Upstream:
    """The gateway over one upstream."""
    gateway.SENTINEL_PROVIDERS = (entry(east),)
    return east
