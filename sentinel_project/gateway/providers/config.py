"""The providers that the gateway forwards to; no Django, no I/O but the file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from sentinel_project.gateway.providers.metadata_hosts import is_metadata_host

MAX_NAME_LENGTH = 256
Token = Annotated[str, msgspec.Meta(pattern=r"^[!-~]+$", max_length=MAX_NAME_LENGTH)]
"""Printable ASCII without spaces: it goes into response headers."""
HeaderValue = Annotated[str, msgspec.Meta(pattern=r"^[ -~]+$", max_length=4096)]
SECRET_NAME = re.compile("auth|cookie|key|password|secret|signature|token", re.IGNORECASE)
"""Names of headers and parameters whose values are secret."""
HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
"""A name in ASCII, with the underscores of container networks; or an IPv6 address, perhaps with a zone."""


Auth = Literal["bearer", "x-api-key", "api-key", "none"]
ApiName = Literal["chat", "responses", "messages", "completions", "embeddings"]


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream. `base_url` None: the echo inside the process; `api_key` None: send none.

    `models` are the public names; `upstream_names` has those that the provider calls otherwise. `account` groups
    providers that share prompt caches and encrypted reasoning.
    """

    name: str
    base_url: str | None
    api_key: str | None
    models: tuple[str, ...]
    weight: float
    apis: tuple[str, ...] = ("chat",)
    auth: Auth = "bearer"
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    forward_headers: frozenset[str] = frozenset()
    upstream_names: dict[str, str] = {}
    account: str = ""
    affinity_header: str | None = None
    affinity_field: str | None = None
    max_in_flight: int | None = None
    first_byte_seconds: float | None = None
    secrets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Collect what the provider may repeat and no client may read: the key, and secrets in headers and query."""
        given = [value for name, value in (*self.headers.items(), *self.query.items()) if SECRET_NAME.search(name)]
        words = (word for value in given for word in value.split() if word.lower() not in ("basic", "bearer"))
        secrets = tuple(secret for secret in (self.api_key, *words) if secret)
        msgspec.structs.force_setattr(self, "secrets", secrets)

    def serves(self, model: str, api: str) -> bool:
        """Return whether requests for a model may go there, by an API."""
        return model in self.models and api in self.apis

    def __repr__(self) -> str:
        return f"Provider({self.name!r}, {self.base_url!r})"  # without the key: reprs end up in logs


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    name: Token
    base_url: str
    models: (
        Annotated[tuple[Token, ...], msgspec.Meta(min_length=1)]
        | Annotated[dict[Token, Token], msgspec.Meta(min_length=1)]
    )
    api_key_env: str | None = None
    weight: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 1
    apis: Annotated[tuple[ApiName, ...], msgspec.Meta(min_length=1)] = ("chat",)
    auth: Auth = "bearer"
    headers: dict[Token, HeaderValue] = {}
    query: dict[Token, str] = {}
    forward_headers: tuple[Token, ...] = ()
    account: Token | None = None
    affinity_header: Token | None = None
    affinity_field: Token | None = None
    max_in_flight: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    first_byte_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    provider: Annotated[list[_Entry], msgspec.Meta(min_length=1)]


APIS = get_args(ApiName)

ECHO = tuple(
    Provider(name=name, base_url=None, api_key=None, models=("echo-small", "echo-large"), weight=1, apis=APIS)
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
        models=tuple(entry.models),
        weight=entry.weight,
        apis=entry.apis,
        auth=entry.auth,
        headers=entry.headers,
        query=entry.query,
        forward_headers=frozenset(name.lower() for name in entry.forward_headers),
        upstream_names=entry.models if isinstance(entry.models, dict) else {},
        account=entry.account or entry.name,
        affinity_header=entry.affinity_header,
        affinity_field=entry.affinity_field,
        max_in_flight=entry.max_in_flight,
        first_byte_seconds=entry.first_byte_seconds,
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
