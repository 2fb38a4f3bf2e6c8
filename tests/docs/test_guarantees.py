from __future__ import annotations

import re

import pytest

from tests.docs.blocks import DOCS

TESTS = re.findall(r"`(tests/[^`]+)::(test_\w+)`", (DOCS / "explanation" / "what-happens-when.md").read_text())


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_promise_names_a_test_that_is_there(path: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (DOCS.parent / path).read_text(), re.MULTILINE)


def test_every_promise_names_a_test() -> None:
    promises = (DOCS / "explanation" / "what-happens-when.md").read_text().split("## Guarantees")[1].split("## Limits")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(TESTS) >= 20
