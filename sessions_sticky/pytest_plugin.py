"""The pytest plugin: sessions in memory, none of them left over for the next test. `-p no:sessions_sticky`: without it.

Projects in whose environment the app happens to be installed, but not in INSTALLED_APPS, pay for one look at a module.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_is_isolated = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Take the sessions into memory before anything of the project runs; pytest-django has set Django up by now."""
    _isolate(config)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Take them into memory where a `pytest_configure` has set Django up."""
    _isolate(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_collectstart(collector: pytest.Collector) -> None:
    """Take them into memory before modules of tests are imported, where Django has been set up since."""
    _isolate(collector.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin each test without sessions."""
    if _isolate(item.config):
        from sessions_sticky import testing

        testing.reset()


def _isolate(config: pytest.Config) -> bool:
    """Keep the sessions in memory from now on until the process ends; return whether they are."""
    if not config.stash.get(_is_isolated, False) and _is_installed():
        from sessions_sticky import testing

        testing.isolate_process()
        config.stash[_is_isolated] = True
    return config.stash.get(_is_isolated, False)


@pytest.fixture
def sessions_valkey() -> Iterator[None]:
    """Sessions in a real, empty Valkey for this test; needs the extra `embedded`."""
    from sessions_sticky import testing

    with testing.valkey():
        yield


def _is_installed() -> bool:
    registry = sys.modules.get("django.apps")
    return registry is not None and registry.apps.ready and registry.apps.is_installed("sessions_sticky")
