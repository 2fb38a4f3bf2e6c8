"""The profiles of hypothesis; for a longer search: `pytest --hypothesis-profile long --timeout 0 FILE`."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("default", deadline=None)  # no test asserts a time
settings.register_profile("long", max_examples=500, deadline=None)
