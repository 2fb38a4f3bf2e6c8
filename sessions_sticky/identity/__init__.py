"""Find the conversation of a request to an LLM gateway; performs no I/O.

`identify` takes the headers and the body and returns an `Identity`. There are two kinds of ids:

- A *named* id is meant for this gateway. It is the session's id, and the session's model replaces the requested one.
- An *observed* id is one that clients send for other purposes, or a fingerprint of the conversation's beginning.
  It is bound per owner and model, as `{12 hex digits}:{id}@{model}`, because one agent session uses several models, and
  clients of different owners may send the same id.

The ids are a contract between processes and versions; tests/sessions_sticky/identity has them as literals.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sessions_sticky import keys
from sessions_sticky.exceptions import InvalidConversationId, InvalidSession
from sessions_sticky.identity.apis import APIS
from sessions_sticky.identity.apis import ContentApi as ContentApi
from sessions_sticky.identity.content import Fingerprint, fingerprint
from sessions_sticky.identity.sources import CONTENT, DEFAULT_NAMED, DEFAULT_SOURCES, observed_text, read_sources
from sessions_sticky.session import plain_text

CONTENT_PREFIX = "content:"
"""The prefix of a fingerprint in a session id. A client's id with this prefix is hashed."""

_OWNER_DIGITS = 12
OBSERVED_FORM = re.compile(rf"[0-9a-f]{{{_OWNER_DIGITS}}}:")
_SUBAGENT_HEADERS = {"header.x-claude-code-session-id": "x-claude-code-agent-id"}
"""The header that identifies the subagents of a session, by the source of the session's id."""


class Identity(NamedTuple):
    """The conversation of a request."""

    session_id: str | None
    """The id of the session, a valid conversation id; None if the request has no conversation."""
    source: str
    """Where the id comes from: `header.x-session-id`, `body.conversation_id`, `content`, or `none`."""
    pins_model: bool
    """Whether the session's model replaces the requested one; only for named ids."""
    ranking_id: str | None
    """The id for `rendezvous`, without the model, so that the models of one session share a provider."""
    client_id: str | None
    """The id as the client sent it, unchecked; None for `content` and `none`."""
    binds: bool
    """Whether to bind a session. False for content without an assistant turn: such a request is only ranked."""


_UNKNOWN = Identity(None, "none", False, None, None, False)


class InvalidNamedId(InvalidConversationId):
    """A named id is not a valid conversation id, or has the form of an observed one."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"Invalid {self.source}: {self.reason}"


def identify(
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    *,
    owner: str,
    model: str,
    api: str | ContentApi,
    key: bytes,
    named: Sequence[str] = DEFAULT_NAMED,
    sources: Sequence[str] = DEFAULT_SOURCES,
    scope: Literal["shared", "owner"] = "shared",
) -> Identity:
    """Return the conversation of a request: the first id of `named`, else the first of `sources`.

    The names of `headers` may have any case. The values of `body` are JSON values or `msgspec.Raw`, which is only
    decoded if needed; undecodable values count as absent. `api` is `chat`, `responses`, `messages` or a `ContentApi`;
    others have no content to recognize. `key` is the secret of the HMACs: another key gives other conversations.
    `scope` applies to named ids (see `scoped`).

    Raises `InvalidNamedId` for an invalid named id, and `InvalidSession` for an owner or model that is not a string.
    Observed ids never raise: blank ones are ignored, numbers become decimal text, invalid ones are hashed.
    """
    for name, text in (("owner", owner), ("model", model)):
        if not isinstance(text, str):
            raise InvalidSession(f"{name} must be a string, not {text!r}")
    owner, model = plain_text(owner), plain_text(model)
    names = "".join(headers)
    if names != names.lower():
        headers = {name.lower(): value for name, value in headers.items()}
    for source, value in read_sources(named, headers, body):
        return _named(source, value, owner, scope)
    for source, value in read_sources(sources, headers, body):
        if source == CONTENT:
            known = next((each for each in APIS if each.name == api), None) if isinstance(api, str) else api
            if known is not None and (found := fingerprint(known, body, owner=owner, key=key)) is not None:
                return _by_content(found, _owner_digits(owner, key), model)
        elif (client_id := observed_text(value)) is not None:
            agent = observed_text(headers.get(_SUBAGENT_HEADERS.get(source, "")))
            return _observed(source, client_id, agent, _owner_digits(owner, key), model)
    return _UNKNOWN


def continued(ranking_id: str, *, source: str, model: str) -> Identity:
    """Return the identity of a request that continues the conversation of an earlier one, by that one's `ranking_id`.

    For requests that refer to an object of an earlier answer, such as a stored response, instead of sending an id.
    `source` is where they refer to it.
    """
    ranking_id, model = plain_text(ranking_id), plain_text(model)
    if not OBSERVED_FORM.match(ranking_id):
        return Identity(ranking_id, source, True, ranking_id, ranking_id, True)
    digits, _, name = ranking_id.partition(":")
    return Identity(_with_model(ranking_id, f"{digits}:{_sha256(name)}", model), source, False, ranking_id, None, True)


def scoped(scope: Literal["shared", "owner"], owner: str, conversation_id: str) -> str:
    """Return the session id of a named id, and of every id in version 0.1.

    `shared` is the id itself: another owner who uses it is refused. `owner` prepends a hash of the owner, so that
    equal ids of two owners are two sessions; an id that would be too long is hashed.
    """
    conversation_id = plain_text(conversation_id)
    if scope == "shared":
        return conversation_id
    prefix = _sha256(owner)[:32]
    own = f"{prefix}:{conversation_id}"
    return own if len(own) <= keys.MAX_CONVERSATION_ID_LENGTH else f"{prefix}:{_sha256(conversation_id)}"


def _named(source: str, value: Any, owner: str, scope: Literal["shared", "owner"]) -> Identity:
    try:
        keys.check(value)
    except InvalidConversationId as exc:
        raise InvalidNamedId(source, str(exc)) from exc
    value = plain_text(value)
    if OBSERVED_FORM.match(value):
        raise InvalidNamedId(
            source,
            f"A conversation id must not begin with {_OWNER_DIGITS} hexadecimal digits and a colon, as {value[:20]!r}"
            " does: this form is reserved for ids that the gateway makes",
        )
    session_id = scoped(scope, owner, value)
    return Identity(session_id, source, True, session_id, value, True)


def _observed(source: str, client_id: str, agent: str | None, digits: str, model: str) -> Identity:
    name = f"{client_id}:{agent}" if agent else client_id
    hashed = f"{digits}:{_sha256(name)}"
    ranking_id = hashed if name.startswith(CONTENT_PREFIX) or not _is_valid(name) else f"{digits}:{name}"
    return Identity(_with_model(ranking_id, hashed, model), source, False, ranking_id, client_id, True)


def _by_content(found: Fingerprint, digits: str, model: str) -> Identity:
    name = f"{digits}:{CONTENT_PREFIX}{found.digest}"
    return Identity(_with_model(name, name, model), CONTENT, False, name, None, found.is_answered)


def _with_model(name: str, hashed: str, model: str) -> str:
    """Return the session id: the name with the model, each hashed only if necessary."""
    session_id = f"{name}@{model}"
    if len(session_id) > keys.MAX_CONVERSATION_ID_LENGTH:
        session_id = f"{hashed}@{model}"
    return session_id if _is_valid(session_id) else f"{hashed}@{_sha256(model)}"


def _is_valid(conversation_id: str) -> bool:
    try:
        keys.check(conversation_id)
    except InvalidConversationId:
        return False
    return True


def _owner_digits(owner: str, key: bytes) -> str:
    return hmac.digest(key, b"owner\0" + owner.encode("utf-8", "surrogatepass"), "sha256").hex()[:_OWNER_DIGITS]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
