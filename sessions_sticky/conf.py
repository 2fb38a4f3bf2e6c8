"""The app's settings, read on first use and again after every change, so that `override_settings` works.

This is the only module that reads and validates Django settings; the system checks report its errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache, partial
from importlib.util import find_spec
from typing import Any, Literal, TypeVar, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
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
    similar_name,
)

MAX_NUMBER = 2**31 - 1
"""Maximum number of entries; more than any machine can store."""

MAX_TRAIL_LENGTH = 1_000
"""Maximum number of turns: a trail is read and shown as a whole."""

DEFAULTS: dict[str, Any] = {}
"""The keys of `SESSIONS_STICKY` with their defaults."""

T = TypeVar("T")


def _option(name: str, default: Any, read: Callable[[str, Any], T]) -> cached_property[T]:
    """Return the property of a key of `SESSIONS_STICKY`; `read` takes its name and value and checks the value."""
    DEFAULTS[name] = default

    def value(conf: Conf) -> T:
        options = getattr(settings, "SESSIONS_STICKY", {})
        if not isinstance(options, dict):
            raise ImproperlyConfigured(f"SESSIONS_STICKY must be a dict, not {options!r}")
        return read(name, options.get(name, default))

    return cached_property(value)


def _invalid(name: str, allowed: str, value: object) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"SESSIONS_STICKY[{name!r}] must be {allowed}, not {value!r}")


def _alias(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in settings.CACHES:
        raise _invalid(name, f"an alias in CACHES ({', '.join(map(repr, settings.CACHES))})", value)
    return value


def _prefix(name: str, value: Any) -> str:
    try:
        return check_prefix(value)
    except ValueError as exc:
        raise _invalid(name, ALLOWED_PREFIX, value) from exc


def _providers(name: str, value: Any) -> frozenset[str] | Callable[[], Any] | None:
    if isinstance(value, str):
        value = _imported(name, value, value)
    return value if callable(value) else _provider_names(value)


def _provider_names(value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    names = frozenset(value) if isinstance(value, Iterable) and not isinstance(value, str) else frozenset()
    if not names or not all(isinstance(name, str) for name in names):
        raise _invalid("PROVIDERS", "names, a callable that returns them, its dotted path, or None", value)
    return names


def _on_store_error(name: str, value: Any) -> Literal["degrade", "raise"]:
    if value not in ("degrade", "raise"):
        raise _invalid(name, "'degrade' or 'raise'", value)
    return cast("Literal['degrade', 'raise']", value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _invalid(name, "True or False", value)
    return value


def _number(name: str, value: Any, most: int = MAX_NUMBER) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise _invalid(name, f"a whole number from 0 to {most}", value)
    return value


def _metrics(name: str, value: Any) -> bool:
    if _flag(name, value) and find_spec("prometheus_client") is None:
        raise ImproperlyConfigured(
            "SESSIONS_STICKY['METRICS'] requires prometheus-client: pip install 'sessions_sticky[metrics]'"
        )
    return bool(value)


def _rate(name: str, value: Any) -> str | None:
    if value is not None and not (
        isinstance(value, str) and re.fullmatch(r"[1-9][0-9]*/(s|sec|m|min|h|hour|d|day)", value)
    ):
        allowed = "None or a number and a period (sec, min, hour, day) such as '600/min'"
        raise _invalid(name, allowed, value)
    return value


def _classes(name: str, value: Any) -> list[Any]:
    given = value if isinstance(value, list | tuple) else [None]
    classes = [_imported(name, value, each) if isinstance(each, str) else each for each in given]
    if not all(callable(each) for each in classes):
        raise _invalid(name, "a list of classes", value)
    return classes


def _imported(name: str, value: Any, path: str) -> Any:
    """Import a dotted path in the value of an option."""
    try:
        return import_string(path)
    except ImportError as exc:
        raise ImproperlyConfigured(f"Invalid SESSIONS_STICKY[{name!r}]: {value!r}; {exc}") from exc


def _identity(name: str, value: Any) -> dict[str, Any]:
    try:
        return check_identity(value)
    except ValueError as exc:
        raise ImproperlyConfigured(f"SESSIONS_STICKY[{name!r}]{exc}") from exc


class Conf:
    """Typed access to the settings; each property raises `ImproperlyConfigured` for an invalid value."""

    cache = _option("CACHE", "default", _alias)
    """Alias of the Django cache that holds the sessions."""
    prefix = _option("PREFIX", "sentinel:", _prefix)
    """The prefix of all keys: one part that ends with a colon, so that no prefix begins with another one."""
    given_providers = _option("PROVIDERS", None, _providers)
    """The providers, or the callable that returns them; see `providers`."""
    on_store_error = _option("ON_STORE_ERROR", "degrade", _on_store_error)
    """What `resolve` does if the store is unavailable: return DEGRADED, or raise."""
    last_seen_size = _option("LAST_SEEN_SIZE", 10_000, _number)
    """How many sessions a process remembers for outages of the store; about 500 bytes each."""
    index = _option("INDEX", True, _flag)
    """Whether to keep the index, which listing, counting and bulk operations need."""
    history_length = _option("HISTORY_LENGTH", 10_000, _number)
    """How many events the history keeps; 0 keeps none."""
    trail_length = _option("TRAIL_LENGTH", 8, partial(_number, most=MAX_TRAIL_LENGTH))
    """How many turns the trail of a session keeps; 0 keeps no trails."""
    metrics = _option("METRICS", False, _metrics)
    """Whether to keep Prometheus metrics (needs the extra `metrics`)."""
    api_throttle_rate = _option("API_THROTTLE_RATE", "600/min", _rate)
    """The rate limit of a user of the admin API, such as `"600/min"`; None for no limit."""
    api_authentication_classes = _option(
        "API_AUTHENTICATION_CLASSES", None, lambda name, value: None if value is None else _classes(name, value)
    )
    """How users log in to the admin API; None is as in the rest of the project."""
    api_permission_classes = _option("API_PERMISSION_CLASSES", (), _classes)
    """What the admin API asks for besides Django's permissions."""
    identity = _option("IDENTITY", {}, _identity)
    """The configured arguments of `identify`, a `key` as bytes; errors do not contain it."""

    @cached_property
    def ttl_seconds(self) -> int:
        """Idle time of a session in seconds: `SESSION_TTL_SECONDS`."""
        try:
            return check_ttl_seconds(getattr(settings, "SESSION_TTL_SECONDS", DEFAULT_TTL_SECONDS))
        except ValueError as exc:
            raise ImproperlyConfigured(str(exc)) from exc

    @property
    def providers(self) -> frozenset[str] | None:
        """The providers to create sessions on and move them to; None allows any. A callable is called each time."""
        given = self.given_providers
        return _provider_names(given()) if callable(given) else given

    @property
    def conversation_scope(self) -> Literal["shared", "owner"]:
        """How `identify` derives the session id of a named id."""
        return cast("Literal['shared', 'owner']", self.identity.get("scope", "shared"))

    @property
    def identity_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `identify`: `identity`, with a key derived from SECRET_KEY by default."""
        arguments = {name: value for name, value in self.identity.items() if name != "apis"}
        return arguments if "key" in arguments else {**arguments, "key": _derived_key(settings.SECRET_KEY)}


@lru_cache(maxsize=1)
def _derived_key(secret_key: str) -> bytes:
    return salted_hmac("sessions_sticky.identity", b"", secret=secret_key, algorithm="sha256").digest()


def unknown_options() -> dict[str, str | None]:
    """Return unknown keys of `SESSIONS_STICKY`, each with a similar known key or None."""
    options = getattr(settings, "SESSIONS_STICKY", {})
    unknown = [key for key in options if key not in DEFAULTS] if isinstance(options, dict) else []
    return {key: similar_name(str(key).upper(), DEFAULTS) for key in unknown}


conf = Conf()


def is_target(provider: str) -> bool:
    """Return whether sessions may be created on a provider and moved to it: the project may say which it has."""
    known = conf.providers
    return known is None or provider in known


def check_target(provider: str) -> None:
    """Raise `UnknownProvider` unless sessions may be created on a provider and moved to it."""
    known = conf.providers
    if known is not None and provider not in known:
        similar = similar_name(provider, known)
        hint = f" Did you mean {similar!r}?" if similar else ""
        raise UnknownProvider(f"Unknown provider {provider!r}: must be one of {', '.join(sorted(known))}.{hint}")


async def acheck_target(provider: str) -> None:
    """Async form of `check_target`, in a thread if `PROVIDERS` reads the database: event loops may not."""
    try:
        check_target(provider)
    except SynchronousOnlyOperation:
        await sync_to_async(check_target)(provider)


def _forget(**kwargs: Any) -> None:
    vars(conf).clear()


setting_changed.connect(_forget)
