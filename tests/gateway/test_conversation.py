"""Where the conversation id comes from."""

from __future__ import annotations

import json

import pytest

from sentinel_project.gateway import conversation
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.conversation import DEFAULT_SOURCES
from sentinel_project.gateway.errors import ApiError
from tests.gateway.asgi import ask, chat

# Each source as a client uses it, in the order of precedence: headers, then fields of the body.
IN_HEADERS = [
    "X-Conversation-Id",
    "X-Session-Id",
    "X-Claude-Code-Session-Id",
    "Session-Id",
    "session_id",
    "X-Session-Affinity",
]
IN_BODY = [
    {"session_id": "conv-1"},
    {"metadata": {"conversation_id": "conv-1"}},
    {"metadata": {"session_id": "conv-1"}},
    {"prompt_cache_key": "conv-1"},
]


def find(sources, headers, body):
    return conversation.find(sources, headers, Body.parse(json.dumps(body).encode()))


async def bound(session_cache, body=None, headers=()) -> list[str]:
    """Return the ids of the conversations that a chat binds."""
    answer = await ask(chat(**(body or {})), headers=headers)
    assert answer.status == 200, answer.body
    found = [key.decode() for key in session_cache.keys("sentinel:session:*")]
    assert answer.headers["x-session-outcome"] == ("created" if found else "none")
    return [key.removeprefix("sentinel:session:") for key in found]


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("name", [*IN_HEADERS, "x-litellm-session-id", "x-anything-else-session-id", "X-SESSION-ID"])
async def test_chat_binds_when_the_id_is_in_a_header(session_cache, name):
    assert await bound(session_cache, headers=[(name, "conv-1")]) == ["conv-1"]


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("body", [{"conversation_id": "conv-1"}, *IN_BODY])
async def test_chat_binds_when_the_id_is_in_the_body(session_cache, body):
    assert await bound(session_cache, body) == ["conv-1"]


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({}, []),
        ({"user": "ann", "safety_identifier": "ann", "metadata": {"user": "ann", "user_id": "ann"}}, []),
        ({}, [("X-User-Id", "ann"), ("X-Request-Id", "r-1"), ("X-Session", "s"), ("My-X-Session-Id", "s")]),
        ({"conversation_id": None, "metadata": None}, [("X-Session-Id", "")]),
        ({"metadata": "conv-1"}, []),
    ],
)
async def test_chat_binds_nothing_when_no_conversation_is_named(session_cache, body, headers):
    assert await bound(session_cache, body, headers) == []


@pytest.mark.usefixtures("gateway")
async def test_chat_tells_no_expiry_when_no_conversation_is_named():
    answer = await ask(chat())
    assert answer.headers["x-session-provider"] in ("north", "south")
    assert answer.headers["x-session-model"] == "model-a"
    assert "x-session-expires-in" not in answer.headers


@pytest.mark.usefixtures("gateway")
async def test_chat_spreads_over_providers_when_no_conversation_is_named(north, south):
    for _ in range(40):
        await ask(chat())
    assert min(len(north.exchanges), len(south.exchanges)) > 0


def test_find_takes_the_first_source_when_there_are_several():
    headers = {name.lower(): f"of {name}" for name in IN_HEADERS}
    body = {
        "conversation_id": "of body",
        "session_id": "of session_id",
        "metadata": {"conversation_id": "of metadata.conversation_id", "session_id": "of metadata.session_id"},
        "prompt_cache_key": "of prompt_cache_key",
    }
    found = []
    while (source := find(DEFAULT_SOURCES, headers, body)) is not None:
        found.append(source)
        name = source.removeprefix("of ")
        if name == "body":
            del body["conversation_id"]
        elif name.startswith("metadata."):
            del body["metadata"][name.removeprefix("metadata.")]
        else:
            headers.pop(name.lower(), None) or body.pop(name)
    assert found == [
        "of body",
        *(f"of {name}" for name in IN_HEADERS),
        "of session_id",
        "of metadata.conversation_id",
        "of metadata.session_id",
        "of prompt_cache_key",
    ]


def test_find_takes_only_the_configured_sources_when_the_setting_names_them():
    sources = ["header.x-thread", "body.thread.id"]
    assert find(sources, {"x-session-id": "a"}, {"conversation_id": "b"}) is None
    assert find(sources, {}, {"thread": {"id": "c"}}) == "c"
    assert find(sources, {"x-thread": "d"}, {"thread": {"id": "c"}}) == "d"


def test_find_finds_a_header_when_the_setting_writes_it_in_capitals():
    assert find(["header.X-Thread-Id"], {"x-thread-id": "a"}, {}) == "a"
    assert find(["header.X-*-Thread-Id"], {"x-my-thread-id": "a"}, {}) == "a"


@pytest.mark.parametrize("value", [257 * "x", "", "a\nb", "\x7f", 17, True, ["a"], {"a": 1}, 1.5])
@pytest.mark.parametrize("name", ["conversation_id", "session_id", "prompt_cache_key"])
def test_find_raises_and_names_the_field_when_the_id_is_not_allowed(name, value):
    with pytest.raises(ApiError) as caught:
        find(DEFAULT_SOURCES, {}, {name: value})
    assert caught.value.status == 400
    assert caught.value.param == name
    assert str(caught.value).startswith(f"Invalid {name}: A conversation id ")


def test_find_raises_and_names_the_header_when_the_id_is_not_allowed():
    with pytest.raises(ApiError, match="1 to 256 characters, not 257") as caught:
        find(DEFAULT_SOURCES, {"x-session-id": 257 * "x"}, {})
    assert caught.value.param == "x-session-id"


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("conversation_id", ["a b/c:d.e{}*?[]\\", "Grüße 🙂", 256 * "é", " "])
async def test_chat_binds_when_the_id_is_unusual(session_cache, conversation_id):
    assert await bound(session_cache, {"conversation_id": conversation_id}) == [conversation_id]
    session_cache.flushdb()
    if conversation_id.strip():
        assert await bound(session_cache, headers=[("X-Session-Id", conversation_id)]) == [conversation_id]


@pytest.mark.usefixtures("gateway")
async def test_chat_is_refused_when_the_header_is_not_utf8():
    answer = await ask(chat(), headers=[("X-Session-Id", b"conv-\xe8")])
    assert answer.status == 400  # and not one id for all of them, as with U+FFFD
    assert answer.error["param"] == "x-session-id"


def test_scoped_is_the_id_itself_when_the_scope_is_shared():
    assert conversation.scoped("shared", "ann", "conv-1") == "conv-1"


def test_scoped_differs_when_owner_or_id_differ():
    ids = ["conv-1", "conv-2", 223 * "x", 224 * "x", 256 * "x", 255 * "x" + "y", 256 * "é", 256 * "🙂"]
    scoped = [conversation.scoped("owner", owner, each) for owner in ("ann", "ben") for each in ids]
    assert len(set(scoped)) == len(scoped)
    assert max(map(len, scoped)) <= 256
    assert conversation.scoped("owner", "ann", "conv-1").endswith(":conv-1")
