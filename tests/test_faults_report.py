"""The page of fault experiments has one row for all servers."""

from __future__ import annotations

from tests.faults.report import Report, Row


def lines(*rows: tuple[str, dict[str, str]]) -> list[str]:
    """Return the rows of the page for set-ups and figures."""
    report = Report()
    for setup, figures in rows:
        report.add(Row(1, "Race", setup, "all at once", figures))
    return [line for line in report.page().splitlines() if line.startswith("| 1 |")]


def test_page_merges_rows_that_differ_in_the_server() -> None:
    figures = {"winners": "1 of 1", "seconds": "7"}
    assert lines(("one valkey, busy", figures | {"seconds": "6"}), ("one redis, busy", figures)) == [
        "| 1 | Race | one redis or valkey, busy | all at once | winners: 1 of 1; seconds: 7 (redis), 6 (valkey) |"
    ]


def test_page_keeps_rows_that_differ_in_more() -> None:
    assert len(lines(("one redis", {"calls": "1"}), ("two valkey", {"calls": "1"}), ("no server", {"calls": "1"}))) == 3
    assert len(lines(("one redis", {"calls": "1"}), ("one valkey", {"answers": "1"}))) == 2
