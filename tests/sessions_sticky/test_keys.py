from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_sticky import InvalidConversationId, keys

ALLOWED = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=256)


@pytest.mark.parametrize(
    ("conversation_id", "key"),
    [
        ("conv-123", "sentinel:session:conv-123"),
        ("", "sentinel:session:"),
        ("a:b/{c}*?[]\\ é", "sentinel:session:a:b/{c}*?[]\\ é"),
    ],
)
def test_session_gives_prefix_and_id_whatever_the_id(conversation_id, key):
    assert keys.session(conversation_id) == key


@given(ALLOWED)
def test_check_accepts_an_id_when_it_has_no_control_characters(conversation_id):
    assert keys.check(conversation_id) is None


@pytest.mark.parametrize(
    "conversation_id", ["x", "x" * 256, "😀" * 256, " ", "\u00a0", "\u200f", "\ufffd", "\U0010ffff"]
)
def test_check_accepts_an_id_when_it_is_at_the_edge(conversation_id):
    assert keys.check(conversation_id) is None


@pytest.mark.parametrize("length", [0, 257, 1_000_000])
def test_check_names_the_length_when_it_does_not_fit(length):
    with pytest.raises(InvalidConversationId, match=rf"has 1 to 256 characters, not {length}$"):
        keys.check("x" * length)


@given(st.characters(categories=["Cc", "Cs"]), st.text("ab", max_size=5))
def test_check_names_character_and_position_when_it_is_a_control_or_surrogate(character, before):
    with pytest.raises(InvalidConversationId) as caught:
        keys.check(f"{before}{character}z")
    assert f"U+{ord(character):04X} (at position {len(before)})" in str(caught.value)


@pytest.mark.parametrize(("value", "name"), [(None, "NoneType"), (7, "int"), (b"conv", "bytes"), (["conv"], "list")])
def test_check_names_the_type_when_it_is_not_a_string(value, name):
    with pytest.raises(InvalidConversationId, match=f"is a string, not {name}$"):
        keys.check(value)
