"""`manage.py test` runs the same suite as `pytest`."""

from __future__ import annotations

from typing import Any

import pytest


class PytestRunner:
    """Hands Django's test command over to pytest; labels are pytest's (paths, `path::test`)."""

    def __init__(self, *, verbosity: int = 1, failfast: bool = False, keepdb: bool = False, **options: Any) -> None:
        self._flags = ["-v"] * (verbosity > 1) + ["-q"] * (verbosity < 1) + ["-x"] * failfast
        self._flags += ["--reuse-db"] * keepdb

    def run_tests(self, test_labels: list[str], **options: Any) -> int:
        """Run and return the exit status, 0 when all passed."""
        return pytest.main([*self._flags, *test_labels])
