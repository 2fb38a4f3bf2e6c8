"""Hostile values for ids, names and headers, including values that are not strings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    import redis

MARK = "<script>alert(1)</script>"
CANARY = "canary"
NASTY = [
    *("*", "?", "[a-z]*", "c?nary", "canar[y]", "\\*", "[^x]*", "can*", "{canary}", "*canary*", "[", "]", "\\"),
    *("sentinel:session:canary", "session:canary", "canary:", ":canary", "../canary", "canary/", "canary\x00", "\x00"),
    *(
        "sentinel:{index}:all",
        "{index}",
        "{}",
        "}{",
        "sentinel:jobs",
        "canary\r\nDEL x",
        "\r\nX-Evil: 1",
        "\n",
        "\x1b[2J",
    ),
    *(
        MARK,
        '"><img src=x onerror=alert(1)>',
        "';DROP TABLE x;--",
        "{{7*7}}",
        "{% debug %}",
        "${jndi:ldap://x}",
        "%s%n",
    ),
    *("%00", "%2e%2e%2f", "%0d%0a", "..", ".", "~", "stats", "history", "operations", "null", "NaN", "-1", "", " "),
    *("\ud800", "\udfff\ud800", "\ufffe", "\u202e", "\u2028", "\u0000", "ä" * 256, "x" * 256, "x" * 257, "😀" * 300),
    *('{"id":"canary"}', "[]", "0", "1e999", "true", "\u0660", "K", "canary\u200b", "CANARY", "\uff43anary"),
]
TEXT = st.one_of(
    st.sampled_from(NASTY),
    st.text(alphabet="canry*?[]\\^-{}:/.%~ \"'<>&\r\n\x00", max_size=20),
    st.text(max_size=300),
    st.text(alphabet=st.characters(exclude_categories=()), max_size=20),
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 10**400, 2**63, 1e308, float("nan"), float("inf")])
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def examples(number: int) -> settings:
    """Return the settings of a test with this number of examples, the same ones at each run."""
    return settings(
        max_examples=number, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )


def assert_no_foreign_keys(store: redis.Redis) -> None:
    """Nothing was written but below `sentinel:`, and every session has an end."""
    found = list(store.scan_iter(count=10_000))
    assert [key for key in found if not key.startswith(b"sentinel:")] == []
    for key in found:
        if key.startswith(b"sentinel:session:"):
            assert store.pttl(key) > 0, key
