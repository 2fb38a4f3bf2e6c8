"""The app's settings, read from Django when first used and again after every change, so that `override_settings` works.

The only module that reads Django settings. A value is validated here and nowhere else; the system checks report what
this module raises.
"""

from __future__ import annotations

import difflib
import re
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import Any, Literal, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.crypto import salted_hmac

DEFAULT_TTL_SECONDS = 86_400
MAX_TTL_SECONDS = 2**31 - 1
"""68 years. Redis itself takes up to 9.2e15 s, but no calendar date lies that far ahead."""
ALLOWED_TTL = f"a whole number of seconds from 1 to {MAX_TTL_SECONDS}"
"""In words, for whoever gave another."""

ALLOWED_PREFIX = "1 to 64 letters, digits, '_', '.' and '-', and a colon at the end"

MAX_NUMBER = 2**31 - 1
"""Of entries kept; more than any machine holds."""

DEFAULTS: dict[str, Any] = {
    "CACHE": "default",
    "PREFIX": "sentinel:",
    "ON_STORE_ERROR": "degrade",
    "LAST_SEEN_SIZE": 10_000,
    "INDEX": True,
    "HISTORY_LENGTH": 10_000,
    "METRICS": False,
    "API_THROTTLE_RATE": "600/min",
    "IDENTITY": {},
}
"""The keys of `SESSIONS_STICKY` with their defaults."""

IDENTITY_OPTIONS = ("key", "named", "scope", "sources")
"""The keys of `SESSIONS_STICKY["IDENTITY"]`, which are arguments of `identify`."""


def check_ttl_seconds(value: object) -> int:
    """Return an idle time in seconds as it came, or raise `ValueError` saying the value and what is allowed."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TTL_SECONDS:
        raise ValueError(f"Invalid SESSION_TTL_SECONDS: {value!r}; allowed is {ALLOWED_TTL}")
    return value


def parse_ttl_seconds(text: str) -> int:
    """Read an idle time from an environment variable; raises `ValueError` as `check_ttl_seconds` does."""
    return check_ttl_seconds(int(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else text)


def check_prefix(value: object) -> str:
    """Return a prefix of keys as it came, or raise `ValueError`."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}:", value):
        raise ValueError(f"Invalid prefix: {value!r}; allowed is {ALLOWED_PREFIX}")
    return value


class Conf:
    """Typed access to the settings; each property raises `ImproperlyConfigured` for a value it cannot use."""

    @cached_property
    def ttl_seconds(self) -> int:
        """Idle time of a session in seconds: `SESSION_TTL_SECONDS`."""
        try:
            return check_ttl_seconds(getattr(settings, "SESSION_TTL_SECONDS", DEFAULT_TTL_SECONDS))
        except ValueError as exc:
            raise ImproperlyConfigured(str(exc)) from exc

    @cached_property
    def cache(self) -> str:
        """Alias of the Django cache that holds the sessions."""
        alias = self._option("CACHE")
        if not isinstance(alias, str) or alias not in settings.CACHES:
            allowed = ", ".join(map(repr, settings.CACHES))
            raise ImproperlyConfigured(
                f"Invalid SESSIONS_STICKY['CACHE']: {alias!r}; allowed is an alias in CACHES: {allowed}"
            )
        return alias

    @cached_property
    def prefix(self) -> str:
        """What all keys begin with. One part, with its colon: no prefix begins with another one."""
        value = self._option("PREFIX")
        try:
            return check_prefix(value)
        except ValueError as exc:
            raise ImproperlyConfigured(
                f"Invalid SESSIONS_STICKY['PREFIX']: {value!r}; allowed is {ALLOWED_PREFIX}"
            ) from exc

    @cached_property
    def on_store_error(self) -> Literal["degrade", "raise"]:
        """What `resolve` does when the store is unreachable: answer as DEGRADED, or raise."""
        value = self._option("ON_STORE_ERROR")
        if value not in ("degrade", "raise"):
            raise ImproperlyConfigured(
                f"Invalid SESSIONS_STICKY['ON_STORE_ERROR']: {value!r}; allowed is 'degrade' or 'raise'"
            )
        return cast("Literal['degrade', 'raise']", value)

    @cached_property
    def last_seen_size(self) -> int:
        """How many sessions a process remembers for the time that the store is down; about 500 bytes each."""
        return self._number("LAST_SEEN_SIZE")

    @cached_property
    def index(self) -> bool:
        """Whether to keep the index, which listing, counting and bulk operations need."""
        return self._flag("INDEX")

    @cached_property
    def history_length(self) -> int:
        """How many events the history keeps; 0 keeps none."""
        return self._number("HISTORY_LENGTH")

    @cached_property
    def metrics(self) -> bool:
        """Whether to keep Prometheus metrics (needs the extra `metrics`)."""
        value = self._flag("METRICS")
        if value and find_spec("prometheus_client") is None:
            raise ImproperlyConfigured(
                "Invalid SESSIONS_STICKY['METRICS']: True; allowed with prometheus-client:"
                " pip install 'sessions_sticky[metrics]'"
            )
        return value

    @cached_property
    def api_throttle_rate(self) -> str | None:
        """Requests that one user may make to the admin API, as `"600/min"`; None is without limit."""
        rate = self._option("API_THROTTLE_RATE")
        if rate is not None and not (
            isinstance(rate, str) and re.fullmatch(r"[1-9][0-9]*/(s|sec|m|min|h|hour|d|day)", rate)
        ):
            raise ImproperlyConfigured(
                f"Invalid SESSIONS_STICKY['API_THROTTLE_RATE']: {rate!r};"
                " allowed is a number and a period (sec, min, hour, day) as in '600/min', or None"
            )
        return rate

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The arguments of `identify` that are set, a `key` as bytes; no error shows it."""
        options = self._option("IDENTITY")
        name = "SESSIONS_STICKY['IDENTITY']"
        if not isinstance(options, dict) or not options.keys() <= set(IDENTITY_OPTIONS):
            found = sorted(map(str, options)) if isinstance(options, dict) else type(options).__name__
            raise ImproperlyConfigured(f"Invalid {name}: {found}; allowed is a dict of {', '.join(IDENTITY_OPTIONS)}")
        if options.get("scope", "shared") not in ("shared", "owner"):
            raise ImproperlyConfigured(f"Invalid {name}['scope']: {options['scope']!r}; allowed is 'shared' or 'owner'")
        for each in ("named", "sources"):
            value = options.get(each, [])
            if not isinstance(value, list | tuple) or not all(isinstance(source, str) for source in value):
                raise ImproperlyConfigured(f"Invalid {name}[{each!r}]: {value!r}; allowed is a list of text")
        if "key" not in options:
            return {**options}
        key = options["key"]
        if not isinstance(key, str | bytes) or not key:
            raise ImproperlyConfigured(
                f"Invalid {name}['key']: {type(key).__name__}; allowed is text that is not empty"
            )
        return {**options, "key": key.encode() if isinstance(key, str) else key}

    @property
    def conversation_scope(self) -> Literal["shared", "owner"]:
        """How `identify` makes the session id of a named id."""
        return cast("Literal['shared', 'owner']", self.identity.get("scope", "shared"))

    @property
    def identity_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `identify`: `identity`, with a key derived from SECRET_KEY where none is set."""
        if "key" in self.identity:
            return self.identity
        return {**self.identity, "key": _derived_key(settings.SECRET_KEY)}

    def _flag(self, name: str) -> bool:
        value = self._option(name)
        if not isinstance(value, bool):
            raise ImproperlyConfigured(f"Invalid SESSIONS_STICKY[{name!r}]: {value!r}; allowed is True or False")
        return value

    def _number(self, name: str) -> int:
        value = self._option(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
            raise ImproperlyConfigured(
                f"Invalid SESSIONS_STICKY[{name!r}]: {value!r}; allowed is a whole number from 0 to {MAX_NUMBER}"
            )
        return value

    @staticmethod
    def _option(name: str) -> Any:
        options = getattr(settings, "SESSIONS_STICKY", {})
        if not isinstance(options, dict):
            raise ImproperlyConfigured(f"Invalid SESSIONS_STICKY: {options!r}; allowed is a dict")
        return options.get(name, DEFAULTS[name])


@lru_cache(maxsize=1)
def _derived_key(secret_key: str) -> bytes:
    return salted_hmac("sessions_sticky.identity", b"", secret=secret_key, algorithm="sha256").digest()


def unknown_options() -> dict[str, str | None]:
    """Return the keys of `SESSIONS_STICKY` that mean nothing, each with the known key it resembles, or None."""
    options = getattr(settings, "SESSIONS_STICKY", {})
    unknown = [key for key in options if key not in DEFAULTS] if isinstance(options, dict) else []
    return {key: next(iter(difflib.get_close_matches(str(key).upper(), DEFAULTS)), None) for key in unknown}


conf = Conf()


def _forget(**kwargs: Any) -> None:
    vars(conf).clear()


setting_changed.connect(_forget)
