"""Any header and any body: an observed id never raises and never reaches another owner's session."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_sticky import keys, rendezvous
from sessions_sticky.identity import InvalidNamedId
from sessions_sticky.identity.sources import DEFAULT_SOURCES
from tests.sessions_sticky.identity.requests import BODIES, identity, raw

ANY_TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(
    ["\ud800", "a\n", "x" * 300, "content:x", "a@b", " "]
)
UTF8_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
HEADER_NAMES = [
    name.removeprefix("header.").replace("*", "acme") for name in DEFAULT_SOURCES if name.startswith("header")
]
HEADERS = st.dictionaries(st.sampled_from([*HEADER_NAMES, "x-claude-code-agent-id"]), ANY_TEXT, max_size=3)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | UTF8_TEXT
WORDS = st.sampled_from(
    ["role", "type", "content", "text", "user", "assistant", "system", "input_text", "session_id", "user_id", "id"]
)
JSON = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | UTF8_TEXT, inner, max_size=4),
    max_leaves=12,
)
TURNS = st.lists(st.fixed_dictionaries({"role": WORDS, "content": JSON}) | JSON, max_size=4)
FIELDS = ["session_id", "litellm_session_id", "metadata", "system", "instructions", "prompt_cache_key", "input"]
VALID_BODIES = st.sampled_from(list(BODIES.values()))
LISTED_BODIES = st.fixed_dictionaries({}, optional={"messages": TURNS, "input": TURNS, **dict.fromkeys(FIELDS, JSON)})
BODY = VALID_BODIES | LISTED_BODIES
API = st.sampled_from([*BODIES, "completions"])


@pytest.mark.slow
@given(HEADERS, BODY, ANY_TEXT, ANY_TEXT, API)
def test_observed_ids_never_raise(headers: dict[str, str], body: dict[str, Any], owner: str, model: str, api: str):
    found = identity(headers, body, owner=owner, model=model, api=api)
    assert not found.pins_model
    if found.source == "none":
        assert found == (None, "none", False, None, None, False)
    else:
        assert found.session_id is not None
        keys.check(found.session_id)
        assert rendezvous(found.ranking_id, {"a": 1, "b": 1})


@pytest.mark.slow
@given(HEADERS, BODY, ANY_TEXT, ANY_TEXT, ANY_TEXT, API)
def test_ids_of_two_owners_are_never_equal(headers, body, one, other, model, api):
    first, second = (identity(headers, body, owner=owner, model=model, api=api) for owner in (one, other))
    assert (first.session_id == second.session_id) is (one == other or first.source == "none")
    assert (first.ranking_id == second.ranking_id) is (one == other or first.source == "none")


@pytest.mark.slow
@given(HEADERS, ANY_TEXT, UTF8_TEXT, UTF8_TEXT)
def test_no_client_id_of_another_owner_reaches_a_session(headers, owner, other, model):
    found = identity(headers, {}, owner=owner, model=model)
    if found.session_id is None or owner == other:
        return
    for sent in (found.session_id, found.ranking_id):
        assert identity({"x-session-id": sent}, {}, owner=other, model=model).session_id != found.session_id
        with pytest.raises(InvalidNamedId):
            identity({}, {"conversation_id": found.session_id}, owner=other)


@pytest.mark.slow
@given(HEADERS, BODY, API)
def test_raw_and_plain_bodies_give_the_same_identity(headers, body, api):
    encoded = raw(body)
    plain = {name: msgspec.json.decode(value) for name, value in encoded.items()}
    assert identity(headers, encoded, api=api) == identity(headers, plain, api=api)


@pytest.mark.slow
@given(JSON)
def test_a_named_id_is_valid_or_rejected(value):
    try:
        found = identity({"x-session-id": "s"}, {"conversation_id": value})
    except InvalidNamedId:
        return
    if value is None:
        assert found.source == "header.x-session-id"
    else:
        assert (found.session_id, found.pins_model) == (value, True)
        keys.check(value)
