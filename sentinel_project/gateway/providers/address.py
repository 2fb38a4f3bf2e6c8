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
    """Return the parts of an http or https URL; raises `ValueError`.

    A name is converted to ASCII, as DNS has it; refused if that changes it (`faß.de` to `fass.de`: IDNA 2003), because
    it may be another's.
    """
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname or url.port == 0:
        raise ValueError(f"{base_url[:200]!r} must be an http:// or https:// URL with a host")
    host = name = url.hostname
    if not name.isascii():
        name = normalize("NFKC", name).replace("\u3002", ".")
        host = name.encode("idna").decode()
        if host.encode().decode("idna") != name:
            raise ValueError(f"{base_url[:200]!r} must have its host in ASCII (xn--...)")
    is_tls = url.scheme == "https"
    default = 443 if is_tls else 80
    shown = f"[{host}]" if ":" in host else host.rstrip(".")
    shown = shown if url.port in (None, default) else f"{shown}:{url.port}"  # as browsers write it: servers compare it
    return Address(Origin(host, url.port or default, is_tls), shown, quote_path(url.path.rstrip("/")))


@lru_cache(maxsize=128)
def quote_path(path: str) -> str:
    """Percent-encode what a path may not hold; what is already encoded stays."""
    return quote(path, safe="/%:@!$&'()*+,;=~")
