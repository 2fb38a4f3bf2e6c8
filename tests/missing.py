"""Programs that some tests need and that a machine may lack."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test; in CI, where everything is installed, let it fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
