"""`manage.py test` runs the same suite as `pytest`."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import pytest
from django.test.runner import parallel_type


class PytestRunner:
    """Run pytest for Django's test command; labels are pytest's (paths, `path::test`)."""

    def __init__(
        self,
        *,
        verbosity: int = 1,
        failfast: bool = False,
        keepdb: bool = False,
        parallel: int = 1,
        **options: Any,
    ) -> None:
        self._flags = ["-v"] * (verbosity > 1) + ["-q"] * (verbosity < 1) + ["-x"] * failfast
        self._flags += ["--reuse-db"] * keepdb
        self._flags += ["-n", str(parallel), "--dist", "worksteal"] if parallel > 1 else []

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add the flags of Django's runner that pytest supports."""
        parser.add_argument("--failfast", action="store_true", help="stop at the first failure")
        parser.add_argument("--keepdb", action="store_true", help="keep the test database")
        parser.add_argument(
            "--parallel",
            nargs="?",
            const="auto",
            default=1,
            type=parallel_type,
            metavar="N",
            help="run in N processes, by default one for each core",
        )

    def run_tests(self, test_labels: list[str], **options: Any) -> int:
        """Run and return the exit status, 0 when all passed."""
        return pytest.main([*self._flags, *test_labels])
