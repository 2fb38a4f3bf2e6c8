"""The app's settings, read on first use and again after every change, so that `override_settings` works.

This is the only module that reads and validates Django settings; the system checks report its errors.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import Any, Literal, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.crypto import salted_hmac
from django.utils.module_loading import import_string

from sessions_sticky.exceptions import UnknownProvider
from sessions_sticky.setting_values import (
    ALLOWED_PREFIX,
    DEFAULT_TTL_SECONDS,
    check_identity,
    check_prefix,
    check_ttl_seconds,
)

MAX_NUMBER = 2**31 - 1
"""Maximum number of entries; more than any machine can store."""

MAX_TRAIL_LENGTH = 1_000
"""Maximum number of turns: a trail is read and shown as a whole."""

DEFAULTS: dict[str, Any] = {
    "CACHE": "default",
    "PREFIX": "sentinel:",
    "PROVIDERS": None,
    "ON_STORE_ERROR": "degrade",
    "LAST_SEEN_SIZE": 10_000,
    "INDEX": True,
    "HISTORY_LENGTH": 10_000,
    "TRAIL_LENGTH": 8,
    "METRICS": False,
    "API_THROTTLE_RATE": "600/min",
    "API_AUTHENTICATION_CLASSES": None,
    "API_PERMISSION_CLASSES": (),
    "IDENTITY": {},
}
"""The keys of `SESSIONS_STICKY` with their defaults."""


class Conf:
    """Typed access to the settings; each property raises `ImproperlyConfigured` for an invalid value."""

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
            raise _invalid("CACHE", f"an alias in CACHES ({', '.join(map(repr, settings.CACHES))})", alias)
        return alias

    @cached_property
    def prefix(self) -> str:
        """The prefix of all keys: one part that ends with a colon, so that no prefix begins with another one."""
        value = self._option("PREFIX")
        try:
            return check_prefix(value)
        except ValueError as exc:
            raise _invalid("PREFIX", ALLOWED_PREFIX, value) from exc

    @property
    def providers(self) -> frozenset[str] | None:
        """The providers to create sessions on and move them to; None allows any. A callable is called each time."""
        given = self.given_providers
        return _provider_names(given()) if callable(given) else given

    @cached_property
    def given_providers(self) -> frozenset[str] | Callable[[], Any] | None:
        """The providers, or the callable that returns them."""
        value = self._option("PROVIDERS")
        if isinstance(value, str):
            try:
                value = import_string(value)
            except ImportError as exc:
                raise ImproperlyConfigured(f"Invalid SESSIONS_STICKY['PROVIDERS']: {value!r}; {exc}") from exc
        return value if callable(value) else _provider_names(value)

    @cached_property
    def on_store_error(self) -> Literal["degrade", "raise"]:
        """What `resolve` does if the store is unavailable: return DEGRADED, or raise."""
        value = self._option("ON_STORE_ERROR")
        if value not in ("degrade", "raise"):
            raise _invalid("ON_STORE_ERROR", "'degrade' or 'raise'", value)
        return cast("Literal['degrade', 'raise']", value)

    @cached_property
    def last_seen_size(self) -> int:
        """How many sessions a process remembers for outages of the store; about 500 bytes each."""
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
    def trail_length(self) -> int:
        """How many turns the trail of a session keeps; 0 keeps no trails."""
        return self._number("TRAIL_LENGTH", MAX_TRAIL_LENGTH)

    @cached_property
    def metrics(self) -> bool:
        """Whether to keep Prometheus metrics (needs the extra `metrics`)."""
        value = self._flag("METRICS")
        if value and find_spec("prometheus_client") is None:
            raise ImproperlyConfigured(
                "SESSIONS_STICKY['METRICS'] requires prometheus-client: pip install 'sessions_sticky[metrics]'"
            )
        return value

    @cached_property
    def api_throttle_rate(self) -> str | None:
        """The rate limit of a user of the admin API, such as `"600/min"`; None for no limit."""
        rate = self._option("API_THROTTLE_RATE")
        if rate is not None and not (
            isinstance(rate, str) and re.fullmatch(r"[1-9][0-9]*/(s|sec|m|min|h|hour|d|day)", rate)
        ):
            allowed = "None or a number and a period (sec, min, hour, day) such as '600/min'"
            raise _invalid("API_THROTTLE_RATE", allowed, rate)
        return rate

    @cached_property
    def api_authentication_classes(self) -> list[Any] | None:
        """How users log in to the admin API; None is as in the rest of the project."""
        name = "API_AUTHENTICATION_CLASSES"
        return None if self._option(name) is None else self._classes(name)

    @cached_property
    def api_permission_classes(self) -> list[Any]:
        """What the admin API asks for besides Django's permissions."""
        return self._classes("API_PERMISSION_CLASSES")

    def _classes(self, name: str) -> list[Any]:
        value = self._option(name)
        given = value if isinstance(value, list | tuple) else [None]
        try:
            classes = [import_string(each) if isinstance(each, str) else each for each in given]
        except ImportError as exc:
            raise ImproperlyConfigured(f"Invalid SESSIONS_STICKY[{name!r}]: {value!r}; {exc}") from exc
        if not all(callable(each) for each in classes):
            raise _invalid(name, "a list of classes", value)
        return classes

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The configured arguments of `identify`, a `key` as bytes; errors do not contain it."""
        try:
            return check_identity(self._option("IDENTITY"))
        except ValueError as exc:
            raise ImproperlyConfigured(f"SESSIONS_STICKY['IDENTITY']{exc}") from exc

    @property
    def conversation_scope(self) -> Literal["shared", "owner"]:
        """How `identify` derives the session id of a named id."""
        return cast("Literal['shared', 'owner']", self.identity.get("scope", "shared"))

    @property
    def identity_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `identify`: `identity`, with a key derived from SECRET_KEY by default."""
        arguments = {name: value for name, value in self.identity.items() if name != "apis"}
        return arguments if "key" in arguments else {**arguments, "key": _derived_key(settings.SECRET_KEY)}

    def _flag(self, name: str) -> bool:
        value = self._option(name)
        if not isinstance(value, bool):
            raise _invalid(name, "True or False", value)
        return value

    def _number(self, name: str, most: int = MAX_NUMBER) -> int:
        value = self._option(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise _invalid(name, f"a whole number from 0 to {most}", value)
        return value

    @staticmethod
    def _option(name: str) -> Any:
        options = getattr(settings, "SESSIONS_STICKY", {})
        if not isinstance(options, dict):
            raise ImproperlyConfigured(f"SESSIONS_STICKY must be a dict, not {options!r}")
        return options.get(name, DEFAULTS[name])


def _provider_names(value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    names = frozenset(value) if isinstance(value, Iterable) and not isinstance(value, str) else frozenset()
    if not names or not all(isinstance(name, str) for name in names):
        raise _invalid("PROVIDERS", "names, a callable that returns them, its dotted path, or None", value)
    return names


def _invalid(name: str, allowed: str, value: object) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"SESSIONS_STICKY[{name!r}] must be {allowed}, not {value!r}")


@lru_cache(maxsize=1)
def _derived_key(secret_key: str) -> bytes:
    return salted_hmac("sessions_sticky.identity", b"", secret=secret_key, algorithm="sha256").digest()


def unknown_options() -> dict[str, str | None]:
    """Return unknown keys of `SESSIONS_STICKY`, each with a similar known key or None."""
    options = getattr(settings, "SESSIONS_STICKY", {})
    unknown = [key for key in options if key not in DEFAULTS] if isinstance(options, dict) else []
    return {key: next(iter(difflib.get_close_matches(str(key).upper(), DEFAULTS)), None) for key in unknown}


conf = Conf()


def is_target(provider: str) -> bool:
    """Return whether sessions may be created on a provider and moved to it: the project may say which it has."""
    return conf.providers is None or provider in conf.providers


def check_target(provider: str) -> None:
    """Raise `UnknownProvider` unless sessions may be created on a provider and moved to it."""
    known = conf.providers
    if known is not None and not is_target(provider):
        similar = difflib.get_close_matches(provider, known, n=1)
        hint = f" Did you mean {similar[0]!r}?" if similar else ""
        raise UnknownProvider(f"Unknown provider {provider!r}: must be one of {', '.join(sorted(known))}.{hint}")


def _forget(**kwargs: Any) -> None:
    vars(conf).clear()


setting_changed.connect(_forget)
