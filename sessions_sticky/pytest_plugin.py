"""The pytest plugin: sessions in memory, none of them left over for the next test. `-p no:sessions_sticky`: without it.

Projects in whose environment the app happens to be installed, but not in INSTALLED_APPS, pay for one look at a module.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_isolation = pytest.StashKey[ExitStack]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin each test without sessions; the first one takes them into memory, when settings surely are there."""
    if not _is_installed():
        return
    from sessions_sticky import testing

    if _isolation not in item.config.stash:
        item.config.stash[_isolation] = ExitStack()
        item.config.stash[_isolation].enter_context(testing.isolated())
    testing.reset()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let the sessions be where they were."""
    config.stash.get(_isolation, ExitStack()).close()


@pytest.fixture
def sessions_valkey() -> Iterator[None]:
    """Sessions in a real, empty Valkey for this test; needs the extra `embedded`."""
    from sessions_sticky import testing

    with testing.valkey():
        yield


def _is_installed() -> bool:
    registry = sys.modules.get("django.apps")
    return registry is not None and registry.apps.ready and registry.apps.is_installed("sessions_sticky")
