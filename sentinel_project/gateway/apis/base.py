"""The interface of an API. Identity, routing, failover, relay, log and metrics are shared."""

from __future__ import annotations

import enum
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from sentinel_project.gateway.apis import events
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.errors import ApiError, openai_shape
from sessions_sticky.identity.apis import Prompt

if TYPE_CHECKING:
    from sentinel_project.gateway.key_quota import Slot

MAX_NAME_LENGTH = 256
"""Maximum length of the name of a model or provider; longer names would fill the log."""
ROOT = "/v1"
"""All paths of the APIs are below it: handler.py, urls.py and the shape of errors follow from it."""
_FILLED_LIST = re.compile(rb"\[[ \t\r\n]*[^] \t\r\n]")


class Stage(enum.Enum):
    """The stage of a stream after an event."""

    PRELUDE = enum.auto()
    """Before the answer, and no sign of one: comments, `ping`, `response.created`, `message_start`."""
    CONTENT = enum.auto()
    ERROR = enum.auto()
    END = enum.auto()
    """The API's own last event; nothing may follow it."""


class Repair(NamedTuple):
    """A body without reasoning of another account; `removed` is the value of `X-Session-Repaired`."""

    body: Body
    removed: str


class Reference(NamedTuple):
    """An object in a request that exists at one provider only: a stored response, a file, a compacted history.

    `not_found` is the provider's own error for one that it does not have.
    """

    id: str
    source: str
    """The field that has it: `body.previous_response_id`."""
    not_found: ApiError
    continues: bool = False
    """Whether the request continues the conversation in which the object was made."""
    is_account_wide: bool = False
    """Whether all providers of the account have it, for any owner."""
    is_kept: bool = True
    """Whether the gateway records which provider has objects of this kind."""


class Api(ABC):
    """One API of the gateway. Its only instances are the constants of the modules beside this one."""

    name: ClassVar[str]
    """Its name in a provider's `apis`. Several paths may share it."""
    path: ClassVar[str]
    """Below `ROOT` of the gateway and below a provider's `base_url`. It is fixed, because the model and `stream` are in
    the body: `parse`, `_body_for` (routing/dispatch), `_send` (upstream/client) and `sessions identify` rely on it."""
    binds: ClassVar[bool] = True
    """Whether a request binds its conversation and counts for its provider's health. If not, it goes to the provider
    that the conversation is bound to."""
    streams: ClassVar[bool] = True
    """Whether a request may ask for its answer as a stream; otherwise the field `stream` has no effect."""
    makes_objects: ClassVar[bool] = False
    """Whether its answers make upstream objects."""
    may_have_error: ClassVar[bool] = False
    """Whether a successful answer may have a field `error` that is not null."""
    answer_field: ClassVar[str] = ""
    """A field of every plain answer, never null; empty if there is no such field. An answer without it is a failure of
    the provider, so name none that a legal answer may omit."""
    heartbeat: ClassVar[bytes] = b": keep-alive\n\n"
    """Bytes between two events that keep the connection of a silent stream open. The SDKs of the API must ignore them:
    read how they parse a stream, for some raise an exception at a comment (Google's does)."""
    takes_hint: ClassVar[bool] = True
    """Whether it accepts the provider's `affinity_field` in the body."""
    asks_for_usage: ClassVar[bool] = False
    """Whether its streams report usage only if `stream_options` asks for it."""
    input_is_uncached: ClassVar[bool] = False
    """Whether the input tokens that it reports leave out those read from the cache and written to it."""
    end_marker: ClassVar[bytes | None] = None
    """Bytes that every last event of a stream contains; others may contain them too. Only events with them are given to
    `stage` to find the end. None: the API has no last event, its streams close. Then `may_end_after` must say when, or
    every stream counts as broken."""
    error_markers: ClassVar[tuple[bytes, ...]] = (b"error",)
    """Every event that reports an error contains some of these bytes; other events may contain them too."""
    end_is_answer: ClassVar[bool] = False
    """Whether the last event contains the whole answer, so that a stream may consist of it alone."""

    @property
    def route(self) -> str:
        """Return its path in the gateway."""
        return ROOT + self.path

    @abstractmethod
    def check(self, body: Body) -> None:
        """Raise `ApiError` 400, naming the field, unless the fields this API requires are there."""

    def prompt(self, body: Mapping[str, Any]) -> Prompt | None:
        """Return the system prompt and the turns, to recognize a conversation by its content; see `ContentApi`."""
        return None

    def may_omit_model(self, body: Body) -> bool:
        """Return whether the request may omit the model because the provider knows it."""
        return False

    @abstractmethod
    def stage(self, event: bytes) -> Stage:
        """Return the stage after one complete event, given as the provider wrote it."""

    def render_error(self, error: ApiError) -> dict[str, Any]:
        """Return the body of an error in this API's shape."""
        return openai_shape(error)

    def error_event(self, error: ApiError, after: bytes = b"") -> bytes:
        """Return an error as the last event of a stream that has begun; `after` are the events before it."""
        return events.encode(error.provider_body or self.render_error(error))

    def provider_error(self, answer: dict[str, Any]) -> dict[str, Any] | None:
        """Return the fields of the error in a provider's JSON object; None when it has no error of this API's shape."""
        error = answer.get("error")
        return error if isinstance(error, dict) and error else None

    def is_error_shape(self, answer: dict[str, Any]) -> bool:
        """Return whether a provider's JSON object is an error that clients of this API can read as it is."""
        return isinstance((self.provider_error(answer) or {}).get("message"), str)

    def repair(self, body: Body, error: ApiError) -> Repair | None:
        """Return a body that the same provider may accept after its error; None when the error is about something else.

        Only reasoning that another account signed or encrypted is ever removed.
        """
        return None

    def references(self, body: Body) -> list[Reference]:
        """Return the upstream objects that a request refers to."""
        return []

    def made(self, body: Body, answer: bytes) -> list[str]:
        """Return the ids of the upstream objects that a plain answer, or one event of a stream, makes."""
        return []

    def may_repeat(self, body: Body) -> bool:
        """Return whether to ask another provider although one may already be working on the request."""
        return True

    def may_end_after(self, whole_events: bytes) -> bool:
        """Return whether a stream may close after these events without its last one; asked for each batch of events."""
        return False


class ApiRequest(NamedTuple):
    """A request of a client, checked. `headers` have lower-case names; `query` is raw.

    `model` is empty where the provider knows it: for stored objects. `path` is below the provider's `base_url`. `slot`
    is None for a key without limits.
    """

    api: Api
    body: Body
    model: str
    is_stream: bool
    headers: dict[str, str]
    query: str
    method: str
    path: str
    slot: Slot | None = None


def parse(api: Api, raw: bytes, headers: dict[str, str], query: str, slot: Slot | None = None) -> ApiRequest:
    """Read a request. Raises `ApiError` 400 that names the field at fault."""
    body = Body.parse(raw)
    if len(body.fields.get("model", b"")) > 6 * MAX_NAME_LENGTH:  # each character may be an escape of six bytes
        raise _model_too_long()
    model, stream = body.get("model"), bytes(body.fields.get("stream", b"null"))
    if model is None and api.may_omit_model(body):
        model = ""
    elif not isinstance(model, str) or not model:
        raise invalid_field("model", model, "the name of a model")
    if len(model) > MAX_NAME_LENGTH:
        raise _model_too_long()
    api.check(body)
    if stream not in (b"true", b"false", b"null"):
        raise invalid_field("stream", body.get("stream"), "true or false")
    is_stream = api.streams and stream == b"true"
    return ApiRequest(api, body, model, is_stream, headers, query, "POST", api.path, slot)


def require_messages(body: Body) -> None:
    """Raise `ApiError` 400 unless `messages` is a JSON list with at least one item. The items are not decoded."""
    raw = body.fields.get("messages", b"null")
    if not _FILLED_LIST.match(raw):
        is_list = bytes(memoryview(raw)[:1]) == b"["
        given = [] if is_list else body.get("messages")
        raise invalid_field("messages", given, "a list of at least one message object")


def require_input(body: Body, name: str) -> None:
    """Raise `ApiError` 400 if the field for a model's input is missing or null."""
    if bytes(body.fields.get(name, b"null")) == b"null":
        raise invalid_field(name, None, "text, tokens, or a list of them")


def invalid_field(param: str, value: Any, allowed: str) -> ApiError:
    """Return the error for a field that is missing, empty or of another type."""
    given = "missing" if value is None else f"of type {type(value).__name__}" if value else "empty"
    code = "missing_required_parameter" if value is None else "invalid_type"
    return ApiError(400, f"{param} must be {allowed}, but is {given}", param=param, code=code)


def _model_too_long() -> ApiError:
    message = f"Invalid model: it has more than the {MAX_NAME_LENGTH} characters allowed"
    return ApiError(400, message, param="model", code="string_above_max_length")
