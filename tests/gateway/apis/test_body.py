"""The top-level fields of a request's body."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.errors import ApiError

NAMES = st.sampled_from(["", "a", "ab", "é", '"', "\n", "\x7f", "𝄞"])
VALUES = st.sampled_from(["1", '""', '"a"', "[]", '{"a":1,"a":2}', '"b\\u0061"'])
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (",", " :"), ("\n,", ":")])


@given(
    fields=st.lists(st.tuples(NAMES, st.booleans(), VALUES), max_size=5),
    separators=SEPARATORS,
    around=st.sampled_from(["", " ", "\n"]),
)
def test_parse_refuses_a_body_exactly_when_it_repeats_a_name(fields, separators, around):
    comma, colon = separators
    parts = [f"{json.dumps(name, ensure_ascii=is_ascii)}{colon}{value}" for name, is_ascii, value in fields]
    raw = f"{around}{{{comma.join(parts)}}}{around}".encode()
    names = [name for name, _, _ in fields]
    if len(set(names)) == len(names):
        assert list(Body.parse(raw).fields) == names
    else:
        with pytest.raises(ApiError, match="twice") as caught:
            Body.parse(raw)
        assert caught.value.code == "duplicate_field"
