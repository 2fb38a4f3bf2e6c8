"""The gateway, in this process and as a real server, over real upstreams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from sentinel_project.gateway import auth
from sentinel_project.gateway.models import digest
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.current import providers
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.load import Load
from sentinel_project.gateway.routing import process
from sentinel_project.gateway.routing.warmth import Warmth
from sentinel_project.gateway.turns.recorder import recorder
from sessions_sticky import sessions
from tests.gateway.asgi import OWNERS
from tests.gateway.live import MODELS, LiveGateway, provider_entry
from tests.gateway.responses import account, two_accounts
from tests.gateway.upstreams import Upstream

if TYPE_CHECKING:
    from pathlib import Path

    import redis
    from pytest_django import Settings

    from tests.clients.upstream import Upstream as Account

NORTH_KEY = "the-key-of-north"


@pytest.fixture(scope="session")
def _north() -> Iterator[Upstream]:
    with Upstream("north") as upstream:
        yield upstream


@pytest.fixture(scope="session")
def _south() -> Iterator[Upstream]:
    with Upstream("south") as upstream:
        yield upstream


@pytest.fixture
def north(_north: Upstream) -> Upstream:
    """One upstream; it has got nothing yet."""
    _north.clear()
    return _north


@pytest.fixture
def south(_south: Upstream) -> Upstream:
    """The other upstream."""
    _south.clear()
    return _south


def provider(upstream: Upstream, *, models: tuple[str, ...] = MODELS, weight: float = 1, **fields: Any) -> Provider:
    """Return an upstream's entry in the gateway's configuration."""
    api_key = NORTH_KEY if upstream.name == "north" else None
    return Provider(name=upstream.name, base_url=upstream.url, api_key=api_key, models=models, weight=weight, **fields)


async def owner_of(ring: auth.KeyRing, key: str) -> str | None:
    """Return the owner of a live key, None for other keys."""
    caller = await ring.caller(key)
    return caller.owner if caller else None


def callers(owners: dict[str, str]) -> dict[str, auth.Caller]:
    """Return what a key ring knows of live keys, which are given with their owners."""
    return {digest(key): auth.Caller(owner, digest(key)) for key, owner in owners.items()}


class FixedKeys(auth.KeyRing):
    """A key ring that knows `OWNERS` without a database."""

    def __init__(self) -> None:
        super().__init__()
        self._callers = callers(OWNERS)

    def _read(self) -> None:
        self._version = 1

    def change(self, key: str, **changes: Any) -> None:
        """Change what the ring knows of a key."""
        self._callers[digest(key)] = self._callers[digest(key)]._replace(**changes)


@pytest.fixture
def gateway(
    session_cache: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch, north: Upstream, south: Upstream
) -> Settings:
    """The gateway in this process, over two upstreams and an empty store; returns the settings to change."""
    monkeypatch.setattr(auth, "keys", FixedKeys())
    monkeypatch.setattr(process, "health", Health(settings.SENTINEL_COOLDOWN_SECONDS, providers))  # all are well
    monkeypatch.setattr(process, "load", Load())
    monkeypatch.setattr(process, "warmth", Warmth())
    recorder._queue.clear()  # of the turns of other tests
    settings.SENTINEL_PROVIDERS = (provider(north), provider(south))
    return settings


@pytest.fixture
def bound_to_north(gateway: Settings) -> str:
    """A conversation of ann's, bound to north."""
    sessions.create("conv", "north", "model-a", "ann")
    return "conv"


@pytest.fixture
def only_north(gateway: Settings, north: Upstream) -> Upstream:
    """The gateway in this process over one upstream: what it answers goes to the client."""
    gateway.SENTINEL_PROVIDERS = (provider(north),)
    return north


@pytest.fixture(scope="session")
def _accounts() -> Iterator[tuple[Account, Account]]:
    with two_accounts() as accounts:
        yield accounts


@pytest.fixture
def accounts(_accounts: tuple[Account, Account], gateway: Settings) -> tuple[Account, Account]:
    """The gateway in this process over two accounts of OpenAI, `north` and `south`."""
    for upstream in _accounts:
        upstream.requests.clear()
        upstream.script.clear()
    gateway.SENTINEL_PROVIDERS = tuple(account(upstream) for upstream in _accounts)
    return _accounts


@pytest.fixture(scope="package")
def _live(
    valkey_url: str, tmp_path_factory: pytest.TempPathFactory, _north: Upstream, _south: Upstream
) -> Iterator[LiveGateway]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    file = folder / "providers.toml"
    file.write_text(
        "".join(
            provider_entry(each.name, each.url, (*MODELS, f"only-{each.name}"), api_key_env="UPSTREAM_KEY")
            for each in (_north, _south)
        )
    )
    # A database of its own: other tests empty theirs. Not kept for the tests of other folders: it takes 1 % of a core.
    store = valkey_url.replace("db=0", "db=1")
    variables = {"REDIS_URL": store, "SENTINEL_PROVIDERS": str(file), "UPSTREAM_KEY": NORTH_KEY}
    with LiveGateway(folder, **variables, SENTINEL_MAX_BODY_BYTES="100000") as live:
        yield live


@pytest.fixture
def live(_live: LiveGateway, north: Upstream, south: Upstream) -> LiveGateway:
    """The gateway as a server of its own, over two upstreams; its sessions stay from test to test."""
    return _live
