from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from decimal import Decimal
from enum import Enum
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_sticky import InvalidConversationId, rendezvous

WEIGHTS = {"anthropic": 1, "mistral": 2.5, "openai": 1, "xai": 0.5, "é": 4}
IDS = [f"conv-{n}" for n in range(100_000)]
MAPPINGS = st.dictionaries(st.text("abcé", min_size=1), st.floats(0.001, 1000), min_size=1, max_size=6)


# Golden values: processes of other Python versions, and other programs, must rank the same.
@pytest.mark.parametrize(
    ("conversation_id", "ranking"),
    [
        ("conv-123", "é mistral xai anthropic openai"),
        ("conv-124", "é mistral anthropic xai openai"),
        ("é😀", "é mistral openai anthropic xai"),
        ("", "é openai mistral anthropic xai"),
        ("x" * 256, "openai mistral anthropic xai é"),
        ("a:b/{c}", "é xai mistral anthropic openai"),
    ],
)
def test_rendezvous_ranks_as_ever(conversation_id, ranking):
    assert rendezvous(conversation_id, WEIGHTS) == ranking.split()


def test_rendezvous_ranks_a_thousand_conversations_as_ever():
    firsts = "".join(rendezvous(conversation_id, WEIGHTS)[0] for conversation_id in IDS[:1000])
    assert hashlib.sha256(firsts.encode()).hexdigest()[:16] == "48e79a4728590c37"


@pytest.mark.slow
@given(st.text(max_size=20), MAPPINGS, st.randoms())
def test_rendezvous_ranks_every_name_once_whatever_the_order_of_the_mapping(conversation_id, weights, random):
    shuffled = random.sample(list(weights.items()), len(weights))
    ranking = rendezvous(conversation_id, dict(shuffled))
    assert ranking == rendezvous(conversation_id, weights)
    assert sorted(ranking) == sorted(weights)


@pytest.mark.slow
def test_rendezvous_shares_conversations_by_weight():
    weights = {"big": 3, "small": 1, "tiny": 0.5}
    firsts = Counter(rendezvous(conversation_id, weights)[0] for conversation_id in IDS)
    for name, weight in weights.items():
        assert firsts[name] / len(IDS) == pytest.approx(weight / 4.5, rel=0.02)


@given(st.text(max_size=20), MAPPINGS, st.floats(0.001, 1000))
def test_rendezvous_keeps_the_order_of_the_others_when_a_name_comes_or_goes(conversation_id, weights, weight):
    longer = rendezvous(conversation_id, {**weights, "new": weight})
    assert [name for name in longer if name != "new"] == rendezvous(conversation_id, weights)


@given(st.text(max_size=20), MAPPINGS, st.floats(1, 10))
def test_rendezvous_never_ranks_a_name_lower_when_its_weight_grows(conversation_id, weights, factor):
    name = min(weights)
    before = rendezvous(conversation_id, weights).index(name)
    assert rendezvous(conversation_id, {**weights, name: weights[name] * factor}).index(name) <= before


def test_rendezvous_leaves_a_name_out_when_its_weight_is_0():
    assert rendezvous("conv-123", {"a": 0, "b": 1, "c": 0.0}) == ["b"]
    assert rendezvous("conv-123", {"a": 0}) == rendezvous("conv-123", {}) == []


def test_rendezvous_ranks_equal_weights_alike_whatever_their_type():
    for conversation_id in IDS[:50]:
        ranking = rendezvous(conversation_id, {"a": 0.5, "b": 2, "c": 0.0})
        assert rendezvous(conversation_id, {"a": Fraction(1, 2), "b": Decimal("2.0"), "c": Decimal(0)}) == ranking


def test_rendezvous_refuses_a_weight_that_no_float_holds():
    with pytest.raises(ValueError, match="The weight of provider 'a' must be a finite number of at least 0, not 1000"):
        rendezvous("conv-123", {"a": 10**400, "b": 1})


@pytest.mark.parametrize("conversation_id", ["conv\ud800", "\udfff" * 300, ["conv"], {"id": "conv"}])
def test_rendezvous_refuses_an_id_when_it_cannot_be_one(conversation_id):
    with pytest.raises(InvalidConversationId):
        rendezvous(conversation_id, {"a": 1, "b": 2})


def test_rendezvous_ranks_members_of_an_enum_by_their_values():
    provider = Enum("provider", {"FIRST": "a", "SECOND": "b", "THIRD": "c"}, type=str)
    for conversation_id in IDS[:50]:
        names = rendezvous(conversation_id, {"a": 1, "b": 1, "c": 1})
        assert rendezvous(conversation_id, dict.fromkeys(provider, 1)) == [provider(name) for name in names]


@pytest.mark.parametrize("name", [5, None, b"a"])
def test_rendezvous_refuses_a_name_that_is_no_string(name):
    with pytest.raises(ValueError, match=rf"The name of a provider must be a string, not {name!r}"):
        rendezvous("conv-123", {"a": 1, name: 2})


def test_rendezvous_refuses_a_name_without_utf8_form():
    with pytest.raises(ValueError, match="surrogates not allowed"):
        rendezvous("conv-123", {"a": 1, "\ud800": 2})


@pytest.mark.parametrize("weights", [["a", "b"], "ab", None, {"a"}, 5])
def test_rendezvous_refuses_weights_that_are_no_mapping(weights):
    with pytest.raises(ValueError, match=r"weights must be a mapping of provider names to numbers, not "):
        rendezvous("conv-123", weights)


@pytest.mark.parametrize(
    "weight",
    [
        *(-1, -0.001, math.inf, -math.inf, math.nan, "2", None, True, b"2", 2j),
        *(Decimal("NaN"), Decimal("sNaN"), Decimal(-1)),
    ],
    ids=repr,
)
def test_rendezvous_names_provider_and_value_when_a_weight_is_invalid(weight):
    expected = f"The weight of provider 'b' must be a finite number of at least 0, not {weight!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        rendezvous("conv-123", {"a": 1, "b": weight})
