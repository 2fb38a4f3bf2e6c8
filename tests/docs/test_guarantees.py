from __future__ import annotations

import re

import pytest

from tests.docs.blocks import DOCS

PAGE = (DOCS / "explanation" / "what-happens-when.md").read_text()
TESTS = re.findall(r"`(tests/[^`]+)::(test_\w+)`", PAGE)


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_guarantee_names_a_test_that_is_there(path: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (DOCS.parent / path).read_text(), re.MULTILINE)


def test_every_guarantee_names_a_test() -> None:
    guarantees = PAGE.split("## Guarantees")[1].split("## Limits")[0]
    rows = [line for line in guarantees.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(TESTS) >= 20
