"""The fault suite: each test of this folder is an experiment on real servers, and may add rows to docs/faults.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.template import Template, engines

from tests.faults.report import Report, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FOLDER = "tests/faults/"
PROPERTY = "experiment"
BLOCKS = ("title", "extrastyle", "extrahead", "bodyclass", "breadcrumbs", "messages", "coltype", "content", "sidebar")
"""What our templates may fill in a page of Django's admin."""


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Add a row to the report of this run: `experiment(1, "Create race", setup="...", fault="...", figures={...})`.

    A test that fails adds none. A number may have several rows: one for each kind of store, say.
    """

    def add(number: int, title: str, *, setup: str, fault: str, figures: dict[str, str]) -> None:
        row = Row(number, title, setup=setup, fault=fault, figures=figures)
        request.node.user_properties.append((PROPERTY, row.as_dict()))  # which pytest-xdist carries to its controller

    return add


@pytest.fixture(scope="module")
def bare_pages() -> Iterator[None]:
    """Render only the blocks of admin pages: Django's frame around them takes as long as most of our pages."""
    engine = engines["django"].engine
    bare = "".join(f"{{% block {name} %}}{{% endblock %}}" for name in BLOCKS)
    with pytest.MonkeyPatch.context() as patch:
        cached = engine.template_loaders[0].get_template_cache
        patch.setitem(cached, "admin/base.html", Template(bare, engine=engine))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--faults-report PATH` writes the page; without it nothing is written."""
    parser.addoption("--faults-report", metavar="PATH", default=None, help="write the figures of the experiments here")


def pytest_configure(config: pytest.Config) -> None:
    """Gather and write in the process that has all results, not in pytest-xdist's workers."""
    path = config.getoption("--faults-report", default=None)
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Writer(config.rootpath / path))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder, and begin with them: they last longest, the soak above all, which waits."""
    experiments = [item for item in items if item.nodeid.startswith(FOLDER)]  # paths take a second for all tests
    for item in experiments:
        item.add_marker("slow")
        item.add_marker("faults")
    experiments.sort(key=lambda item: item.path.name != "test_soak.py")
    items[:] = [*experiments, *(item for item in items if not item.nodeid.startswith(FOLDER))]


class _Writer:
    """Writes the page once all experiments that were asked for have passed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._report = Report()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the rows of a test that passed."""
        if report.when == "call" and report.passed:
            for name, row in report.user_properties:
                if name == PROPERTY:
                    self._report.add(Row(**row))

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write, unless a test failed: the page of the last good run is worth more than half a page."""
        if exitstatus == pytest.ExitCode.OK:
            self._path.write_text(self._report.page(), encoding="utf-8")
