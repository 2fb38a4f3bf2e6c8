from __future__ import annotations

import pickle
from enum import Enum

import msgspec
import pytest
from django.test import RequestFactory

from sessions_sticky import InvalidConversationId, InvalidSession, keys
from sessions_sticky.identity import InvalidNamedId, continued, identify, scoped
from sessions_sticky.identity.sources import DEFAULT_NAMED, DEFAULT_SOURCES, check_sources, observed_text, read_sources
from tests.sessions_sticky.identity.requests import CHAT, KEY, identity, raw

ORDER = [
    "header.x-claude-code-session-id",
    "header.thread-id",
    "header.session-id",
    "header.session_id",
    "header.x-opencode-session",
    "header.x-conversation-id",
    "header.x-session-affinity",
    "header.x-session-id",
    "header.agent-session-id",
    "header.x-openwebui-chat-id",
    "header.x-grok-conv-id",
    "header.x-affinity",
    "header.x-thread-id",
    "header.x-chat-id",
    "header.x-litellm-session-id",
    "header.x-acme-session-id",
    "header.x-qwen-code-session-id",
    "body.session_id",
    "body.litellm_session_id",
    "body.metadata.conversation_id",
    "body.metadata.session_id",
    "body.metadata.user_id",
    "content",
]
"""The order of the documentation, with two headers for the wildcard."""
VALUES = {"body.metadata.user_id": "user_ab12_account_cd34_session_id-21"}


def request_with(sources):
    """Return headers and body with a different id at each source."""
    headers, body = {}, {}
    for source in sources:
        place, _, path = source.partition(".")
        value = VALUES.get(source, f"id-{ORDER.index(source)}")
        if place == "header":
            headers[path] = value
        elif place == "body":
            *outer, name = path.split(".")
            target = body.setdefault(outer[0], {}) if outer else body
            target[name] = value
        else:
            body |= CHAT
    return headers, body


@pytest.mark.parametrize("position", range(len(ORDER)), ids=ORDER)
def test_identify_takes_the_first_source_of_the_order(position):
    headers, body = request_with(reversed(ORDER[position:]))
    found = identity(headers, body)
    assert found.source == ORDER[position]
    assert found.client_id == (None if found.source == "content" else f"id-{position}")
    assert identity(headers, raw(body)) == found


def test_default_sources_are_those_of_the_order():
    wildcard = ("header.x-acme-session-id", "header.x-qwen-code-session-id")
    assert list(DEFAULT_SOURCES) == [
        "header.x-*-session-id" if source == wildcard[0] else source for source in ORDER if source != wildcard[1]
    ]


def test_identify_prefers_a_named_id_to_all_observed_ones():
    headers, body = request_with(ORDER)
    assert identity(headers, body | {"conversation_id": "trip"}) == (
        "trip",
        "body.conversation_id",
        True,
        "trip",
        "trip",
        True,
    )


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, {}),
        ({"x-parent-session-id": "p", "x-acme-parent-session-id": "p", "x-posthog-session-id": "visit"}, {}),
        ({"x-client-request-id": "r", "x-session-id": "", "x-acme-session-id": " "}, {}),
        ({}, {"user": "u", "safety_identifier": "s", "prompt_cache_key": "bucket"}),
        ({}, {"session_id": None, "litellm_session_id": " \t", "metadata": {"session_id": [], "conversation_id": {}}}),
        ({}, {"session_id": True, "metadata": "text"}),
        ({}, {"metadata": {"user_id": "alice"}}),
        ({}, {"metadata": {"user_id": '{"device_id": "d"}'}}),
        ({}, {"metadata": {"user_id": '{"session_id": '}}),
        ({}, {"metadata": {"user_id": 7}}),
    ],
)
@pytest.mark.parametrize("form", [dict, raw])
def test_identify_returns_none_without_an_id(headers, body, form):
    assert identity(headers, form(body)) == (None, "none", False, None, None, False)


@pytest.mark.parametrize("kind", [dict, lambda headers: RequestFactory().get("/", headers=headers).headers])
@pytest.mark.parametrize("name", ["X-Session-Id", "x-session-id", "X-DYNAMO-SESSION-ID", "X-Claude-Code-Session-Id"])
def test_identify_reads_names_of_headers_in_any_case(name, kind):
    found = identity(kind({"Accept": "*/*", name: "abc"}))
    assert (found.client_id, found.source) == ("abc", f"header.{name.lower()}")


def test_identify_reads_the_header_of_a_subagent_in_any_case():
    headers = {"X-Claude-Code-Session-Id": "a", "X-Claude-Code-Agent-Id": "b"}
    assert identity(headers) == identity({name.lower(): value for name, value in headers.items()})


@pytest.mark.parametrize("value", [None, 5, b"text"])
@pytest.mark.parametrize("field", ["owner", "model"])
def test_identify_refuses_an_owner_or_a_model_that_is_no_string(field, value):
    with pytest.raises(InvalidSession, match=f"^{field} must be a string, not {value!r}$"):
        identity({"x-session-id": "abc"}, **{field: value})


def test_identify_skips_a_blank_value_for_the_next_source():
    assert identity({"x-session-id": " ", "x-chat-id": "c"}).source == "header.x-chat-id"
    assert identity({"x-a-session-id": "", "x-b-session-id": "b"}).source == "header.x-b-session-id"


def test_identify_ignores_what_does_not_decode():
    body = {"session_id": msgspec.Raw(b'"\xff"'), "metadata": msgspec.Raw(b'{"session_id":'), "litellm_session_id": "x"}
    assert identity({}, body).source == "body.litellm_session_id"
    assert identity({}, {"conversation_id": msgspec.Raw(b'"\xff"')}).source == "none"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (-3, "-3"),
        (2**70, str(2**70)),
        (1.5, "1.5"),
        (1e400, None),
        pytest.param(10**5000, None, id="huge"),
        (False, None),
        (b"x", None),
    ],
)
def test_observed_text_of_numbers_is_decimal(value, text):
    assert observed_text(value) == text


@pytest.mark.parametrize(
    "user_id",
    [
        "user_9f8e_account__session_54c1eb09-bc4c",
        "user_9f8e_account_57a1-21ec_session_54c1eb09-bc4c",
        '{"device_id": "d", "account_uuid": "", "session_id": "54c1eb09-bc4c"}',
    ],
)
@pytest.mark.parametrize("form", [dict, raw])
def test_identify_finds_the_session_in_a_user_id(user_id, form):
    found = identity({}, form({"metadata": {"user_id": user_id}}), api="messages")
    assert (found.source, found.client_id) == ("body.metadata.user_id", "54c1eb09-bc4c")


def test_identify_keeps_subagents_of_claude_code_apart():
    main = {"x-claude-code-session-id": "s"}
    first, second = ({**main, "x-claude-code-agent-id": agent} for agent in ("a", "b"))
    found = [identity(headers) for headers in (main, first, second)]
    assert len({each.session_id for each in found}) == len({each.ranking_id for each in found}) == 3
    assert {each.client_id for each in found} == {"s"}
    assert identity({**main, "x-claude-code-agent-id": " "}) == found[0]
    assert identity({"x-session-id": "s", "x-claude-code-agent-id": "a"}).session_id == found[0].session_id


def test_identify_keeps_threads_of_codex_apart():
    found = [identity({"session-id": "s", "thread-id": thread}) for thread in ("s", "t")]
    assert found[0].session_id != found[1].session_id


def test_identify_binds_observed_ids_by_owner_and_model():
    headers = {"x-session-affinity": "ses_1"}
    small, large = (identity(headers, model=model) for model in ("small", "large"))
    assert small.session_id != large.session_id
    assert small.ranking_id == large.ranking_id
    assert (small.pins_model, small.binds) == (False, True)
    other = identity(headers, model="small", owner="globex")
    assert other.session_id != small.session_id
    assert other.ranking_id != small.ranking_id
    assert identity(headers, model="small", key=b"another").session_id != small.session_id


@pytest.mark.parametrize(
    ("client_id", "model"),
    [
        ("x" * 238, "gpt-5"),
        ("x" * 1000, "gpt-5"),
        ("line\nbreak", "gpt-5"),
        ("\x9b", "gpt-5"),
        ("\ud800", "gpt-5"),
        ("content:0123", "gpt-5"),
    ],
)
def test_identify_hashes_an_id_that_is_not_valid_in_a_key(client_id, model):
    found = identity({"x-session-id": client_id}, model=model)
    keys.check(found.session_id)
    assert client_id not in found.session_id
    assert found.client_id == client_id
    assert found.session_id.endswith(f"@{model}")
    assert found.session_id != identity({"x-session-id": f"{client_id}2"}, model=model).session_id


@pytest.mark.parametrize("model", ["m" * 300, "a\x00b", "\udfff"])
def test_identify_hashes_a_model_that_is_not_valid_in_a_key(model):
    found = identity({"x-session-id": "short"}, model=model)
    keys.check(found.session_id)
    keys.check(identity({}, CHAT, model=model).session_id)
    assert found.session_id != identity({"x-session-id": "short"}, model=f"{model}2").session_id
    assert found.ranking_id == identity({"x-session-id": "short"}).ranking_id


def test_identify_ranks_by_the_same_id_whether_or_not_the_key_is_hashed():
    headers = {"x-session-id": "x" * 200}
    plain, hashed = (identity(headers, model=model) for model in ("gpt-5", "m" * 100))
    assert "x" * 200 in plain.session_id
    assert "x" * 200 not in hashed.session_id
    assert plain.ranking_id == hashed.ranking_id


@pytest.mark.parametrize("value", ["", "x" * 257, "a\nb", 5, True, ["c"], {"id": "c"}, "0123456789ab:conv"])
@pytest.mark.parametrize("form", [dict, raw])
@pytest.mark.parametrize("scope", ["shared", "owner"])
def test_identify_rejects_an_invalid_named_id(value, form, scope):
    with pytest.raises(InvalidNamedId, match=r"^Invalid body\.conversation_id: A conversation id") as caught:
        identity({}, form({"conversation_id": value}), scope=scope)
    assert caught.value.source == "body.conversation_id"
    assert isinstance(caught.value, InvalidConversationId)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (copied.source, str(copied)) == (caught.value.source, str(caught.value))


@pytest.mark.parametrize("value", ["0123456789AB:conv", "0123456789a:conv", "0123456789abc:conv", "0123456789ab", " "])
def test_identify_accepts_a_named_id_that_only_resembles_an_observed_one(value):
    assert identity({}, {"conversation_id": value}).session_id == value


def test_identify_never_makes_a_named_id_from_an_observed_one():
    found = identity({"x-session-id": "s"})
    with pytest.raises(InvalidNamedId):
        identity({}, {"conversation_id": found.session_id})
    with pytest.raises(InvalidNamedId):
        identity({}, {"conversation_id": identity({}, CHAT).session_id})


def test_identify_names_by_the_configured_sources():
    named = ["header.X-Conversation-Id", *DEFAULT_NAMED]
    headers = {"x-conversation-id": "trip"}
    assert identity(headers, named=named) == ("trip", "header.x-conversation-id", True, "trip", "trip", True)
    assert identity({"x-conversation-id": ""}, {"conversation_id": "b"}, named=named).session_id == "b"


def test_identify_reads_only_the_configured_sources():
    assert identity({"x-session-id": "s"}, CHAT, sources=["body.a.b"]).source == "none"
    found = identity({}, {"a": {"b": 12}, **CHAT}, sources=["content", "body.a.b"])
    assert found.source == "content"
    assert identity({}, {"a": {"b": 12}}, sources=["content", "body.a.b"]).client_id == "12"


def test_identify_scopes_named_ids_by_owner():
    first, second = (identity({}, {"conversation_id": "c"}, scope="owner", owner=owner) for owner in ("a", "b"))
    assert first.session_id != second.session_id
    assert (first.client_id, first.ranking_id) == ("c", first.session_id)
    assert first.session_id == scoped("owner", "a", "c")
    long = identity({}, {"conversation_id": "c" * 256}, scope="owner")
    keys.check(long.session_id)


@pytest.mark.parametrize(
    "source",
    [
        *("cookie.sid", "header.", "body", "x-session-id", "header.a b", ""),
        *("header.authorization", "header.Authorization", "header.X-Api-Key", "header.x-goog-api-key", "header.cookie"),
    ],
)
def test_check_sources_rejects_a_source_that_cannot_be_read(source):
    with pytest.raises(ValueError, match=rf"^source must be header\.NAME .*, not '{source}'$"):
        check_sources(["body.a", source])
    with pytest.raises(ValueError, match=r"source must be header\.NAME"):
        list(read_sources([source], {}, {}))


def test_check_sources_accepts_the_defaults():
    check_sources(DEFAULT_NAMED + DEFAULT_SOURCES)


def test_wildcard_reads_headers_alphabetically():
    headers = {"x-b-id": "2", "x-a-id": "1", "y-id": "3"}
    assert list(read_sources(["header.x-*-id"], headers, {})) == [("header.x-a-id", "1"), ("header.x-b-id", "2")]


@pytest.mark.parametrize("wildcard", ["*", "x-*", "*-key", "auth*", "coo?ie*", "*authorization"])
def test_wildcard_reads_no_keys(wildcard):
    names = ("authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie")
    assert not list(read_sources([f"header.{wildcard}"], dict.fromkeys(names, "secret"), {}))


def test_identify_reads_excluded_headers_that_are_configured_by_name():
    found = identify(
        {"x-posthog-session-id": "v"}, {}, owner="o", model="m", api="chat", key=KEY,
        sources=["header.x-posthog-session-id"],
    )  # fmt: skip
    assert found.client_id == "v"


class Named(str, Enum):  # noqa: UP042  # formatted as its name, not its value
    OWNER, MODEL, ID = "acme", "gpt-4", "conv-1"


@pytest.mark.parametrize("scope", ["shared", "owner"])
@pytest.mark.parametrize(
    "request_", [({"x-session-id": "conv-1"}, {}), ({}, {"conversation_id": "conv-1"}), ({}, CHAT)]
)
def test_identify_makes_the_same_ids_of_members_of_an_enum_as_of_their_values(request_, scope):
    of_members = identify(*of_enum(request_), owner=Named.OWNER, model=Named.MODEL, api="chat", key=KEY, scope=scope)
    assert of_members == identify(*request_, owner="acme", model="gpt-4", api="chat", key=KEY, scope=scope)
    assert {type(text) for text in of_members if isinstance(text, str)} == {str}
    continuing = [continued(each, source="s", model="gpt-4") for each in ("conv-1", "0123456789ab:conv-1")]
    assert [continued(each, source="s", model=Named.MODEL) for each in ("conv-1", "0123456789ab:conv-1")] == continuing


def of_enum(request_):
    return [{name: Named.ID if value == "conv-1" else value for name, value in part.items()} for part in request_]
