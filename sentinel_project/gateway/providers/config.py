"""The providers that the gateway forwards to; no Django, no I/O but the file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from sentinel_project.gateway.providers.metadata_hosts import is_metadata_host

MAX_NAME_LENGTH = 256
Token = Annotated[str, msgspec.Meta(pattern=r"^[!-~]+$", max_length=MAX_NAME_LENGTH)]
"""Printable ASCII without spaces: it goes into response headers."""
HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
"""A name in ASCII, with the underscores of container networks; or an IPv6 address, perhaps with a zone."""


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One OpenAI-compatible upstream. `base_url` None: the echo inside the process; `api_key` None: send none."""

    name: str
    base_url: str | None
    api_key: str | None
    models: tuple[str, ...]
    weight: float

    def __repr__(self) -> str:
        return f"Provider({self.name!r}, {self.base_url!r})"  # without the key: reprs end up in logs


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    name: Token
    base_url: str
    models: Annotated[tuple[Token, ...], msgspec.Meta(min_length=1)]
    api_key_env: str | None = None
    weight: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 1


class _File(msgspec.Struct, forbid_unknown_fields=True):
    provider: Annotated[list[_Entry], msgspec.Meta(min_length=1)]


ECHO = tuple(
    Provider(name=name, base_url=None, api_key=None, models=("echo-small", "echo-large"), weight=1)
    for name in ("echo-one", "echo-two", "echo-three")
)
"""What there is without a file: the first run needs no key and no network."""


def load_providers(path: str) -> tuple[Provider, ...]:
    """Read the TOML file of providers. Raises `ValueError` saying what is wrong and where."""
    try:
        entries = msgspec.toml.decode(Path(path).read_bytes(), type=_File).provider
    except OSError as exc:
        raise ValueError(f"{path}: {exc.strerror}") from exc
    except (msgspec.MsgspecError, UnicodeError) as exc:
        raise ValueError(f"{path}: {exc}") from exc
    providers = tuple(_provider(path, entry) for entry in entries)
    names = [provider.name for provider in providers]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: more than one provider is named {twice[0]!r}")
    return providers


def _provider(path: str, entry: _Entry) -> Provider:
    where = f"{path}: provider {entry.name!r}"
    host = _host(entry.base_url)
    if host is None:
        shown = re.sub("//.*@", "//...@", entry.base_url)
        raise ValueError(f"{where}: base_url {shown!r}; allowed is http:// or https://, a host and a path")
    if is_metadata_host(host):
        raise ValueError(f"{where}: base_url {entry.base_url!r}; not allowed are addresses of a cloud's own services")
    api_key = None
    if entry.api_key_env is not None:
        api_key = os.environ.get(entry.api_key_env, "")
        if not re.fullmatch(r"[!-~]+", api_key):
            raise ValueError(f"{where}: the environment variable {entry.api_key_env} is not set to an API key")
    return Provider(
        name=entry.name,
        base_url=entry.base_url.rstrip("/"),
        api_key=api_key,
        models=entry.models,
        weight=entry.weight,
    )


def _host(base_url: str) -> str | None:
    """Return the host that the HTTP client makes of a URL; None unless that has a scheme, a host and a path alone."""
    from yarl import URL  # aiohttp's; loading it takes 30 ms, and commands without a file of providers need none

    try:
        given, url = urlsplit(base_url), URL(base_url)
    except ValueError:  # brackets without an IPv6 address, a port that is no number, a character that no host has
        return None
    # The provider's key goes into `api_key_env`: aiohttp does not take credentials in both places.
    if given.query or given.fragment or "@" in given.netloc or url.scheme not in ("http", "https") or url.port == 0:
        return None
    return url.raw_host if url.raw_host and HOST.fullmatch(url.raw_host) else None
