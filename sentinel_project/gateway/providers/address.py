"""Where a provider's base URL leads, for the check of its host and for the HTTP client: both must read it alike."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from unicodedata import normalize
from urllib.parse import quote, urlsplit


class Origin(NamedTuple):
    """The server that a connection leads to."""

    host: str
    port: int
    is_tls: bool


class Address(NamedTuple):
    """A base URL in parts. `host` is as the header `Host` has it; `path` is quoted and has no slash at its end."""

    origin: Origin
    host: str
    path: str


@lru_cache(maxsize=128)
def parse_address(base_url: str) -> Address:
    """Return the parts of an http or https URL; raises `ValueError`. A name is converted to ASCII, as DNS has it."""
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname or url.port == 0:
        raise ValueError(f"{base_url[:200]!r} must be an http:// or https:// URL with a host")
    host = url.hostname if url.hostname.isascii() else normalize("NFKC", url.hostname).encode("idna").decode()
    is_tls = url.scheme == "https"
    shown = f"[{host}]" if ":" in host else host
    shown = shown if url.port is None else f"{shown}:{url.port}"
    return Address(Origin(host, url.port or (443 if is_tls else 80), is_tls), shown, quote_path(url.path.rstrip("/")))


@lru_cache(maxsize=128)
def quote_path(path: str) -> str:
    """Percent-encode what a path may not hold; what is already encoded stays."""
    return quote(path, safe="/%:@!$&'()*+,;=~")
