"""The record of a provider, and the fields of an entry in the providers' file; performs no I/O."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from sentinel_project.gateway.apis import APIS
from sessions_sticky.turns import DEFAULT_CACHE_SECONDS, Price

MAX_NAME_LENGTH = 256
Token = Annotated[str, Meta(pattern=r"^[!-~]+\Z", max_length=MAX_NAME_LENGTH)]
"""Printable ASCII without spaces: it goes into response headers."""

SECRET_NAME = re.compile("auth|cookie|key|password|secret|signature|token", re.IGNORECASE)
"""Names of headers and parameters whose values are secret."""

Auth = Literal["bearer", "x-api-key", "api-key", "none"]
API_NAMES = tuple(dict.fromkeys(api.name for api in APIS))
ApiName = Annotated[str, Meta(pattern=rf"^({'|'.join(API_NAMES)})\Z")]

CREDENTIALS = frozenset(
    {"authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie", "set-cookie"}
)
OF_A_CONNECTION = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        *("host", "content-length", "content-type", "content-encoding", "accept-encoding", "expect", "forwarded"),
    }
)
"""Hop-by-hop headers (RFC 9110, 7.6.1), and those that the gateway's own HTTP client sets or that name the client."""
OF_A_CLIENT = frozenset({"openai-organization", "openai-project", "anthropic-dangerous-direct-browser-access"})
"""Headers that name a client's account: `headers` may set the operator's, `forward_headers` may not pass a client's."""


Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class Provider(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One upstream. `base_url` None: the echo inside the process; `api_key` None: send none.

    `models` are the public names; `upstream_names` has those that the provider calls otherwise. `account` groups
    providers that share prompt caches and encrypted reasoning. Names of headers are in lower case.
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
    cache_seconds: float = DEFAULT_CACHE_SECONDS
    prices: dict[str, Price] = {}

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """What to mask in answers: the key, and secrets in headers and query."""
        given = [value for name, value in (*self.headers.items(), *self.query.items()) if SECRET_NAME.search(name)]
        words = (word for value in given for word in value.split() if word.lower() not in ("basic", "bearer"))
        return tuple(secret for secret in (self.api_key, *words) if secret)

    @cached_property
    def endpoint(self) -> str:
        """A hash of where requests go and of the key: what is known of one endpoint does not apply to another."""
        where = msgspec.json.encode((self.base_url, self.api_key, self.auth, self.headers, self.query), order="sorted")
        return hashlib.sha256(where).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Provider({self.name!r}, {self.base_url!r})"  # without the key: reprs end up in logs


class Entry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One `[[provider]]` of the file. The descriptions say what is allowed, in errors and on the page of the docs."""

    name: Annotated[Token, Meta(description="1 to 256 printable ASCII characters without spaces")]
    base_url: Annotated[str, Meta(description="an http:// or https:// URL of a host and a path alone")]
    models: Annotated[
        tuple[Token, ...] | dict[Token, Token],
        Meta(description="a list of names, or a table from names to the provider's names, without spaces"),
    ]
    api_key_env: Annotated[str | None, Meta(description="the name of an environment variable that holds the key")] = (
        None
    )
    auth: Annotated[Auth | None, Meta(description=f"one of {', '.join(get_args(Auth))}")] = None
    apis: Annotated[
        tuple[ApiName, ...], Meta(description=f"a list of at least one of {', '.join(API_NAMES)}", min_length=1)
    ] = ("chat",)
    weight: Annotated[float, Meta(description="a number from 0 to 1000000", ge=0, le=1_000_000)] = 1
    account: Annotated[Token | None, Meta(description="1 to 256 printable ASCII characters without spaces")] = None
    headers: Annotated[dict[str, str], Meta(description="a table from header names to values, printable ASCII")] = {}
    query: Annotated[dict[str, str], Meta(description="a table from parameter names to values, all text")] = {}
    forward_headers: Annotated[tuple[str, ...], Meta(description="a list of header names")] = ()
    affinity_header: Annotated[str | None, Meta(description="the name of a header")] = None
    affinity_field: Annotated[Token | None, Meta(description="the name of a field of the request's JSON")] = None
    max_in_flight: Annotated[Count | None, Meta(description="a whole number from 1 to 1000000")] = None
    first_byte_seconds: Annotated[Seconds | None, Meta(description="a number of seconds above 0, up to 86400")] = None
    cache_seconds: Annotated[Seconds, Meta(description="a number of seconds above 0, up to 86400")] = (
        DEFAULT_CACHE_SECONDS
    )
    price: Annotated[
        dict[Token, Price],
        Meta(
            description="a table from names of its models to tables of input (required), cached_input,"
            " cache_write and output, from 0 to 1000000"
        ),
    ] = {}


ECHO = tuple(
    Provider(name=name, base_url=None, api_key=None, models=("echo-small", "echo-large"), weight=1, apis=API_NAMES)
    for name in ("echo-one", "echo-two", "echo-three")
)
"""The providers without a file, which need no key and no network."""
