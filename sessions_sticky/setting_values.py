"""The values that settings may have; reads no settings, for projects that read theirs from the environment."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

DEFAULT_TTL_SECONDS = 86_400
MAX_TTL_SECONDS = 2**31 - 1
"""68 years. Redis accepts up to 9.2e15 s, which is beyond any calendar date."""
ALLOWED_TTL = f"a whole number of seconds from 1 to {MAX_TTL_SECONDS}"
"""The allowed values, for messages."""

ALLOWED_PREFIX = "1 to 64 letters, digits, '_', '.' and '-', and a colon at the end"

IDENTITY_OPTIONS = ("apis", "key", "named", "scope", "sources")
"""The keys of `SESSIONS_STICKY["IDENTITY"]`: arguments of `identify`, and the APIs for its command."""


def check_ttl_seconds(value: object, name: str = "SESSION_TTL_SECONDS") -> int:
    """Return an idle time in seconds unchanged; raise `ValueError` if it is invalid."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TTL_SECONDS:
        raise ValueError(f"{name} must be {ALLOWED_TTL}, not {value!r}")
    return value


def parse_ttl_seconds(text: str) -> int:
    """Parse an idle time from an environment variable; raise `ValueError` like `check_ttl_seconds`."""
    return check_ttl_seconds(int(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else text)


def check_prefix(value: object) -> str:
    """Return a prefix of keys as it came, or raise `ValueError`."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}:", value):
        raise ValueError(f"prefix must be {ALLOWED_PREFIX}, not {value!r}")
    return value


def similar_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one resembles most; None if none does."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def check_identity(options: object) -> dict[str, Any]:
    """Return `SESSIONS_STICKY["IDENTITY"]` with its key as bytes; raise `ValueError`, whose text follows its name.

    The text never contains the key.
    """
    if not isinstance(options, dict):
        raise ValueError(f" must be a dict, not {type(options).__name__}")
    for unknown in options.keys() - set(IDENTITY_OPTIONS):
        similar = similar_name(str(unknown), IDENTITY_OPTIONS)
        hint = f"; did you mean {similar!r}?" if similar else f"; allowed are {', '.join(IDENTITY_OPTIONS)}"
        raise ValueError(f" has the unknown key {unknown!r}{hint}")
    if options.get("scope", "shared") not in ("shared", "owner"):
        raise ValueError(f"['scope'] must be 'shared' or 'owner', not {options['scope']!r}")
    for each in ("named", "sources"):
        value = options.get(each, [])
        if not isinstance(value, list | tuple) or not all(isinstance(source, str) for source in value):
            raise ValueError(f"[{each!r}] must be a list of strings, not {value!r}")
    apis = options.get("apis", ())
    if not isinstance(apis, list | tuple) or not all(callable(getattr(each, "prompt", None)) for each in apis):
        raise ValueError(f"['apis'] must be a list of ContentApi objects, not {apis!r}")
    if "key" not in options:
        return {**options}
    key = options["key"]
    if not isinstance(key, str | bytes) or not key:
        raise ValueError(f"['key'] must be a non-empty string, not {type(key).__name__}")
    return {**options, "key": key.encode() if isinstance(key, str) else key}
