"""The subcommand `identify`: the conversation of a recorded request, and the reason."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from sessions_sticky.cli.errors import WRONG_USAGE, Error
from sessions_sticky.cli.output import Output, Table
from sessions_sticky.conf import conf
from sessions_sticky.identity import Identity, identify
from sessions_sticky.identity.apis import APIS, ContentApi
from sessions_sticky.identity.clients import CLIENTS
from sessions_sticky.identity.sources import DEFAULT_NAMED, DEFAULT_SOURCES, decode, read_sources


class Request(NamedTuple):
    """A recorded request; header names are lower-case."""

    headers: dict[str, str]
    body: dict[str, msgspec.Raw]
    url: str


class _Header(msgspec.Struct):
    name: str
    value: str


class _PostData(msgspec.Struct):
    text: str = "{}"


class _HarRequest(msgspec.Struct, rename={"post_data": "postData"}):
    url: str
    headers: list[_Header]
    post_data: _PostData = msgspec.field(default_factory=_PostData)


class _HarEntry(msgspec.Struct):
    request: _HarRequest


class _HarLog(msgspec.Struct):
    entries: list[_HarEntry]


class _Document(msgspec.Struct):
    """Either a HAR file, an entry of one, or headers and body."""

    log: _HarLog | None = None
    request: _HarRequest | None = None
    headers: dict[str, str] = {}
    body: msgspec.Raw = msgspec.Raw(b"{}")
    url: str = ""


_DOCUMENT = msgspec.json.Decoder(_Document)
_BODY = msgspec.json.Decoder(dict[str, msgspec.Raw] | str)


def add_arguments(command: ArgumentParser) -> None:
    """Add the arguments of `identify`."""
    command.add_argument("FILE", nargs="?", default="-", help="JSON or HAR; default: standard input")
    command.add_argument("--entry", type=int, metavar="N", help="the entry of a HAR file, from 1")
    command.add_argument("--api", metavar="API", help="the API; default: from the URL, else chat")
    command.add_argument("--owner", default="", metavar="O", help="the owner; default: empty")
    command.add_argument("--model", metavar="M", help="the requested model; default: from the body")


def run(
    output: Output, *, FILE: str, entry: int | None, api: str | None, owner: str, model: str | None, **_: Any
) -> None:
    """Print the conversation of a request."""
    try:
        request = _parse(_read(FILE), entry)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise Error(f"Invalid request: {exc}", WRONG_USAGE) from exc
    known = _api(api, request.url)
    model = str(decode(request.body.get("model")) or "") if model is None else model
    options = conf.identity_arguments
    sources = (*options.get("named", DEFAULT_NAMED), *options.get("sources", DEFAULT_SOURCES))
    try:
        found = identify(request.headers, request.body, owner=owner, model=model, api=known, **options)
        sent = [source for source, value in read_sources(sources, request.headers, request.body) if value is not None]
    except ValueError as exc:
        raise Error(str(exc), WRONG_USAGE) from exc
    if not model and found.session_id is not None and not found.pins_model:
        output.print_err("The body names no model, but the ids depend on it: add --model if the path names one")
    ignored = [source for source in sent if source != found.source]
    sent_by = [name for name, sources_of in CLIENTS.items() if found.source in sources_of]
    reason = _reason(found)
    document = {"api": known.name, "model": model, "sent_by": sent_by, "ignored": ignored, "reason": reason}
    output.print_json([found._asdict() | document])
    fields = {
        "source": found.source,
        "sent by": ", ".join(sent_by),
        "ignored": ", ".join(ignored),
        "client id": found.client_id,
        "session id": found.session_id,
        "ranking id": found.ranking_id,
        "api": known.name,
        "model": model,
        "reason": reason,
    }
    Table(output, "FIELD", "VALUE", fold=True).add([[name, value] for name, value in fields.items() if value])


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as exc:
        raise Error(f"{file} cannot be read: {exc.strerror}", WRONG_USAGE) from exc


def _parse(data: bytes, entry: int | None) -> Request:
    document = _DOCUMENT.decode(data)
    recorded = document.request
    if document.log is not None:
        entries = document.log.entries
        number = 1 if entry is None and len(entries) == 1 else entry
        if number is None or not 1 <= number <= len(entries):
            raise Error(f"--entry must be a number from 1 to {len(entries)}, not {entry}", WRONG_USAGE)
        recorded = entries[number - 1].request
    if recorded is None:
        headers, body, url = document.headers, _BODY.decode(document.body), document.url
    else:
        headers = {header.name: header.value for header in recorded.headers}
        body, url = recorded.post_data.text, recorded.url
    if isinstance(body, str):
        body = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return Request({name.lower(): value for name, value in headers.items()}, body, url)


def _api(name: str | None, url: str) -> ContentApi:
    """Return the API with a name, else that of a URL, else chat completions."""
    apis: Sequence[ContentApi] = conf.identity.get("apis") or APIS
    if name is None:
        return next((each for each in apis if each.path in urlsplit(url).path), APIS[0])
    for each in apis:
        if each.name == name:
            return each
    names = ", ".join(dict.fromkeys(each.name for each in apis))
    raise Error(f"--api must be one of {names}, not {name!r}", WRONG_USAGE)


def _reason(found: Identity) -> str:
    if found.pins_model:
        return "a named id: one session for all models; its model replaces the requested one"
    if found.client_id is not None:
        return "an id that clients send for other purposes: one session per owner and model"
    if found.session_id is None:
        return "no id and no content: the request has no conversation"
    if found.binds:
        return "no id: recognized by the beginning of the conversation"
    return "no id and no assistant turn yet: only ranked, by the beginning of the conversation"
