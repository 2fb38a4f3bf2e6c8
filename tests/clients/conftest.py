"""Real clients, the gateway and recording upstreams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clients.clients import Client
from tests.clients.gateway import Gateway
from tests.clients.matrix import Kind
from tests.clients.upstream import Upstream
from tests.missing import skip_or_fail

Connect = Callable[[Kind], Client]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder; on a busy machine an agent takes half a minute to start."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("clients")
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session")
def _upstreams() -> Iterator[tuple[Upstream, Upstream]]:
    with Upstream("north") as north, Upstream("south") as south:
        yield north, south


@pytest.fixture(scope="session")
def _gateway(tmp_path_factory: pytest.TempPathFactory, _upstreams: tuple[Upstream, Upstream]) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway"), *_upstreams) as gateway:
        yield gateway


@pytest.fixture
def gateway(_gateway: Gateway) -> Iterator[Gateway]:
    """The gateway; what a test kills is restored after it."""
    yield _gateway
    _gateway.restore()
    assert not _gateway.tracebacks()


@pytest.fixture
def upstreams(gateway: Gateway, _upstreams: tuple[Upstream, Upstream]) -> dict[str, Upstream]:
    """The upstreams by name; they have got nothing yet."""
    return {upstream.name: upstream for upstream in _upstreams}


@pytest.fixture
def connect(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connect]:
    """Start clients of the gateway, each in a folder of its own; `key` and further options override the usual ones."""
    with ExitStack() as stack:

        def start(kind: Kind, key: str = gateway.key, **options: str) -> Client:
            if not kind.program.exists():
                skip_or_fail(f"{kind.program.name} is not installed: run `make clients`")
            folder = tmp_path_factory.mktemp(kind.name)
            return stack.enter_context(kind.start(folder, gateway.root, key, **options))

        yield start
