"""How the server is started."""

from __future__ import annotations

import pytest

from sentinel_project import serving

resource = pytest.importorskip("resource")


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """The limit of open files, as the operating system would keep it."""
    kept = {"now": (256, 1_000_000)}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: kept["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limit: kept.update(now=limit))
    return kept


@pytest.mark.parametrize(
    ("before", "after", "is_enough"),
    [
        ((256, 1_000_000), (2256, 1_000_000), True),
        ((256, resource.RLIM_INFINITY), (2256, resource.RLIM_INFINITY), True),
        ((256, 512), (512, 512), False),
        ((512, 512), (512, 512), False),
        ((4096, 4096), (4096, 4096), True),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (resource.RLIM_INFINITY, resource.RLIM_INFINITY), True),
    ],
)
def test_file_limit_is_raised_as_far_as_it_goes(limits, settings, caplog, before, after, is_enough):
    settings.SENTINEL_MAX_CONNECTIONS = 1000
    limits["now"] = before
    serving._raise_file_limit()
    assert limits["now"] == after
    assert bool(caplog.messages) is not is_enough
    assert all("SENTINEL_MAX_CONNECTIONS=1000 may need 2256" in message for message in caplog.messages)
