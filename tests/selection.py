"""Which tests run, in which order and in how many processes; tests/conftest.py has these hooks from here."""

from __future__ import annotations

import gc
import re
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

SLOW_STORES = ("database", "fakeredis", "redis", "cluster", "sentinel")
"""Left to the whole suite: what runs on them also runs on locmem or Valkey, and the quick suite must stay quick."""
SLOW_FIXTURES = {"live", "process", "terminal", "traced"}
"""These start processes of Python, half a second of a CPU each."""
MARKED_FOLDERS = ("clients", "containers")
"""Folders whose tests have the mark of their name."""
SLOW_FOLDERS = ("browser", "faults", *MARKED_FOLDERS)
QUICK_CASES = 5
"""Of each parametrised test the quick part runs as many cases, spread over all."""
QUICK = "not slow"
SLOW_MODULE = re.compile(r"^pytestmark = \[?pytest\.mark\.slow", re.MULTILINE)


def pytest_configure() -> None:
    """Collect no garbage while the tests are collected: they are some million objects, and all of them stay."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Exempt the tests from each later collection of garbage, which some of them begin themselves."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Run four workers on two cores: half of the time of a test is spent waiting."""
    cores = yield
    return cores * 2


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import modules of which nothing is selected: imports took a tenth of the time of the quick suite."""
    expression = config.option.markexpr
    if collection_path.is_dir():
        left_out = (
            SLOW_FOLDERS if expression == QUICK else [each for each in MARKED_FOLDERS if f"not {each}" in expression]
        )
        return True if collection_path.name in left_out else None
    is_module = expression == QUICK and collection_path.suffix == ".py"
    return True if is_module and SLOW_MODULE.search(collection_path.read_text()) else None


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Mark as slow what is on `SLOW_STORES` or has `SLOW_FIXTURES`, and of each test all but `QUICK_CASES` cases.

    Only if the expression asks: to look for marks takes half a second of each worker.
    """
    if "slow" not in config.option.markexpr:
        return
    quick = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("slow") is None:
            if SLOW_FIXTURES.isdisjoint(item.fixturenames) and not any(each in SLOW_STORES for each in _params(item)):
                quick[item.parent, item.originalname].append(item)
            else:
                item.add_marker("slow")
    for cases in quick.values():
        kept = {round(number * (len(cases) - 1) / (QUICK_CASES - 1)) for number in range(QUICK_CASES)}
        for number, item in enumerate(cases):
            if number not in kept and len(cases) > QUICK_CASES:
                item.add_marker("slow")


def _params(item: pytest.Function) -> list[object]:
    return list(item.callspec.params.values()) if hasattr(item, "callspec") else []
