"""Read the providers' file. Errors name the file, line, entry, key and what is allowed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

import msgspec

from sentinel_project.gateway.apis import APIS
from sentinel_project.gateway.providers.address import parse_address
from sentinel_project.gateway.providers.config import CREDENTIALS, OF_A_CLIENT, OF_A_CONNECTION, Entry, Provider
from sentinel_project.gateway.providers.metadata_hosts import is_metadata_host
from sentinel_project.gateway.providers.toml_source import Place, parse, suggestion

HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
"""A name in ASCII, with the underscores of container networks; or an IPv6 address, perhaps with a zone."""
ENDPOINTS = sorted((api.path for api in APIS), key=len, reverse=True)
"""The paths that the gateway adds to a `base_url`, longest first. Some providers' URLs end in `/models`."""
HIDDEN = frozenset({"headers", "query"})
"""Keys whose values are not shown in errors, because they may be secrets."""

FIELDS = {field.name: field for field in msgspec.structs.fields(Entry)}
HINTS = get_type_hints(Entry, include_extras=True)
ALLOWED: dict[str, str] = {name: hint.__metadata__[-1].description for name, hint in HINTS.items()}
"""The allowed values of each key, for messages."""
REFUSED = {
    **dict.fromkeys(CREDENTIALS, "keys go into api_key_env and auth"),
    **dict.fromkeys(OF_A_CONNECTION, "it belongs to the gateway's own connection"),
}
REFUSED_OF_CLIENTS = {**REFUSED, **dict.fromkeys(OF_A_CLIENT, "it names the client's account, not the operator's")}

_PROMPT_FIELDS = ("model", "messages", "input", "prompt", "system", "instructions", "tools", "max_tokens", "container")
_STATE_FIELDS = ("conversation_id", "conversation", "previous_response_id", "store", "metadata")
_OTHER_FIELDS = (*_PROMPT_FIELDS, *_STATE_FIELDS, "stream", "stream_options", "background")
"""Fields of requests that are not cache hints: with the hint in `stream` every plain request would be refused."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_HEADER_VALUE = re.compile(r"[!-~]([ -~]{0,4094}[!-~])?")
_API_KEY = re.compile(r"[!-~]+")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


def load_providers(path: str) -> tuple[Provider, ...]:
    """Return the providers of a TOML file. Raises `ValueError` with one sentence for the operator."""
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise ValueError(f"{path}: {exc.strerror}") from exc
    places = parse(path, data)
    providers = tuple(_provider(place) for place in places)
    _check_names(places, providers)
    if not any(provider.weight for provider in providers):
        raise places[0].error("weight", "must be above 0 for at least one provider: none takes new conversations")
    return providers


def _provider(place: Place) -> Provider:
    entry = _entry(place)
    _check_base_url(place, entry.base_url)
    if not entry.models:  # msgspec keeps no length of a list that may be a table
        raise place.error("models", f"must be {ALLOWED['models']}, not {_shown(place.values['models'])}")
    _check_headers(place, "headers", entry.headers, REFUSED)
    for name, value in entry.headers.items():
        if not _HEADER_VALUE.fullmatch(value):
            raise place.error("headers", f"must be {ALLOWED['headers']} of 1 to 4096 characters; {name}'s is not", name)
    _check_headers(place, "forward_headers", entry.forward_headers, REFUSED_OF_CLIENTS)
    if entry.affinity_header is not None:
        _check_headers(place, "affinity_header", [entry.affinity_header], REFUSED_OF_CLIENTS)
    if entry.affinity_field in _OTHER_FIELDS:
        raise place.error("affinity_field", f"must not be {entry.affinity_field}, which has another meaning")
    for model in entry.price:
        if model not in entry.models:
            raise place.error("price", f"must be {ALLOWED['price']}; {model!r} is not one of its models", model)
    return Provider(
        name=entry.name,
        base_url=entry.base_url.rstrip("/"),
        api_key=_api_key(place, entry),
        models=tuple(entry.models),
        weight=entry.weight,
        apis=entry.apis,
        auth=entry.auth or "bearer",
        headers={name.lower(): value for name, value in entry.headers.items()},
        query=entry.query,
        forward_headers=frozenset(name.lower() for name in entry.forward_headers),
        upstream_names=entry.models if isinstance(entry.models, dict) else {},
        account=entry.account or entry.name,
        affinity_header=entry.affinity_header and entry.affinity_header.lower(),
        affinity_field=entry.affinity_field,
        max_in_flight=entry.max_in_flight,
        first_byte_seconds=entry.first_byte_seconds,
        cache_seconds=entry.cache_seconds,
        prices=entry.price,
    )


def _entry(place: Place) -> Entry:
    """Return an entry with validated types and ranges."""
    for key in place.values:
        if key not in FIELDS:
            raise place.error(key, f"is not a known key; {suggestion(key, FIELDS)}")
    for key, field in FIELDS.items():
        if field.required and key not in place.values:
            raise place.error(key, f"is missing. It must be {ALLOWED[key]}")
    for key, value in place.values.items():
        if refusal := _refusal(key, value):
            # msgspec says whether it refuses an item or the whole, but not which item of a table.
            item, shown = _refused_item(key, value) if "`$[" in refusal or "`key`" in refusal else ("", _shown(value))
            raise place.error(key, f"must be {ALLOWED[key]}, not {shown}", item)
    return msgspec.convert(place.values, Entry)


def _refusal(key: str, value: Any) -> str:
    try:
        msgspec.convert(value, HINTS[key])
    except msgspec.ValidationError as exc:
        return str(exc)
    return ""


def _refused_item(key: str, value: list[Any] | dict[str, Any]) -> tuple[str, str]:
    """Return the refused item of a list or table, to find its line, and its text for the error."""
    if isinstance(value, list):
        item = next(item for item in value if _refusal(key, [item]))
        return (item if isinstance(item, str) else ""), f"one with {_shown(item)}"
    name = next(name for name, item in value.items() if _refusal(key, {name: item}))
    return name, f"one in which {name} is {'not text' if key in HIDDEN else _shown(value[name], depth=1)}"


def _shown(value: Any, depth: int = 0) -> str:
    """Return a value of a TOML file for an error; tables down to `depth` as they are written."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict) and value and depth:
        return f"{{ {', '.join(f'{name} = {_shown(item)}' for name, item in value.items())} }}"[:200]
    if isinstance(value, (list, dict)):
        kind = "list" if isinstance(value, list) else "table"
        return f"a {kind}" if value else f"an empty {kind}"
    return repr(value[:100]) if isinstance(value, str) else str(value)


def _check_headers(place: Place, key: str, names: Iterable[str], refused: Mapping[str, str]) -> None:
    """Refuse invalid and repeated header names, and headers that must not be configured here."""
    known: set[str] = set()
    for name in names:
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            raise place.error(key, f"must be {ALLOWED[key]}; {name[:100]!r} is not the name of a header", name)
        if lower in refused or lower.startswith("x-forwarded-"):
            reason = refused.get(lower, "it names clients and proxies")
            raise place.error(key, f"must not have {name}: {reason}", name)
        if lower in known:
            raise place.error(key, f"must not have {name} twice", name)
        known.add(lower)


def _api_key(place: Place, entry: Entry) -> str | None:
    if entry.api_key_env is None:
        if entry.auth not in (None, "none"):
            raise place.error("auth", f"must be none where api_key_env is missing, not {entry.auth}")
        return None
    key = os.environ.get(entry.api_key_env, "")
    if not _API_KEY.fullmatch(key):
        # What is not written like a variable's name may be the key itself.
        name = entry.api_key_env if _VARIABLE.fullmatch(entry.api_key_env) else "the one given"
        problem = "is not printable ASCII without spaces" if key else "is not set"
        raise place.error("api_key_env", f"must be {ALLOWED['api_key_env']}; {name} {problem}")
    return key


def _check_names(places: list[Place], providers: tuple[Provider, ...]) -> None:
    """Refuse repeated providers, repeated models of a provider, and a model in two spellings."""
    numbers: dict[str, int] = {}
    spellings: dict[str, tuple[str, int]] = {}
    for place, provider in zip(places, providers, strict=True):
        if (number := numbers.setdefault(provider.name, place.number)) != place.number:
            raise place.error("name", f"must differ from the name of number {number}")
        for model in provider.models:
            if provider.models.count(model) > 1:
                raise place.error("models", f"must not have {model!r} twice", model)
            spelling, number = spellings.setdefault(model.casefold(), (model, place.number))
            if spelling != model:
                raise place.error("models", f"must have {spelling!r} as in number {number}, not {model!r}", model)


def _check_base_url(place: Place, base_url: str) -> None:
    host = _host(base_url)
    if host is None:
        shown = re.sub("//.*@", "//...@", base_url[:200])
        raise place.error("base_url", f"must be {ALLOWED['base_url']}, not {shown!r}")
    if is_metadata_host(host):
        raise place.error("base_url", f"must not lead to a cloud's own services as {base_url!r} does")
    base_url = base_url.rstrip("/")
    if endpoint := next((each for each in ENDPOINTS if base_url.lower().endswith(each)), None):
        allowed, added = base_url[: -len(endpoint)], base_url[-len(endpoint) :]
        raise place.error("base_url", f"must not end in {added}, which the gateway adds: write {allowed!r}")


def _host(base_url: str) -> str | None:
    """Return the host that the HTTP client connects to; None unless the URL has only a scheme, a host and a path."""
    try:
        given, address = urlsplit(base_url), parse_address(base_url)
    except ValueError:  # brackets without an IPv6 address, an invalid port, name or scheme
        return None
    if given.query or given.fragment or "@" in given.netloc:  # the provider's key goes into `api_key_env`
        return None
    return address.origin.host if HOST.fullmatch(address.origin.host) else None
