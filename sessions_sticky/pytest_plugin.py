"""The pytest plugin: stores sessions in memory and clears them before each test. `-p no:sessions_sticky` turns it off.

It does nothing in a project without the app in INSTALLED_APPS.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

_is_isolated = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Isolate before any code of the project runs; pytest-django has called `django.setup()`."""
    _isolate(config)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Isolate if another `pytest_configure` has called `django.setup()`."""
    _isolate(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_collectstart(collector: pytest.Collector) -> None:
    """Isolate before test modules are imported, if a `conftest.py` has called `django.setup()`."""
    _isolate(collector.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Clear the sessions before each test."""
    if _isolate(item.config):
        from sessions_sticky import testing

        testing.reset()


def _isolate(config: pytest.Config) -> bool:
    """Store sessions in memory until the process ends, if the app is installed; return whether they are."""
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
