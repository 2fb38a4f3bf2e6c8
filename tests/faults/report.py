"""docs/faults.md: the figures of the last run of the fault suite on one page."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from tests.servers import VALKEY, program_version

HEAD = """\
# Faults: what was tried, and what came of it

Written by `make faults`, which runs the experiments in `tests/faults/` on servers that they start themselves. Each is a
test: a figure that is wrong fails the run, and this page stays as it was.

Last run: {date} on {cores} cores with {programs}.

| | experiment | set-up | fault | figures |
| --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Row:
    """One experiment on one kind of store; `figures` are shown in the order given."""

    number: int
    title: str
    setup: str
    fault: str
    figures: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return it in plain types, from which `Row(**it)` makes it again."""
        return asdict(self)


class Report:
    """The rows of a run."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Add a row; the order of adding does not matter."""
        self._rows.append(row)

    def page(self) -> str:
        """Return the page, in Markdown."""
        rows = sorted(self._rows, key=lambda row: (row.number, row.title, row.setup, row.fault))
        head = HEAD.format(date=f"{datetime.now(UTC):%Y-%m-%d}", cores=os.cpu_count(), programs=", ".join(_programs()))
        return head + "".join(_line(row) for row in rows)


def _line(row: Row) -> str:
    figures = "; ".join(f"{name}: {figure}" for name, figure in row.figures.items())
    cells = [str(row.number), row.title, row.setup, row.fault, figures]
    return "| " + " | ".join(map(_cell, cells)) + " |\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _programs() -> list[str]:
    found = [("Valkey", VALKEY), ("Redis", shutil.which("redis-server"))]
    servers = [f"{name} {'.'.join(map(str, program_version(path)))}" for name, path in found if path]
    libraries = [f"Django {version('django')}", f"redis-py {version('redis')}"]
    return [*servers, f"Python {platform.python_version()}", *libraries]
