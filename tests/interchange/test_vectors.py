"""docs/vectors.json holds for our own code, and for the Node program."""

from __future__ import annotations

import json
import subprocess

import pytest

from sessions_sticky import InvalidConversationId, Session, keys, rendezvous
from sessions_sticky.session import readable
from tests.interchange import PROGRAM, VECTORS, in_bytes, vectors


def session_of(vector):
    return Session(**{**vector["session"], "created_at": int(vector["session"]["created_at"])})


def test_vectors_are_ascii_and_distinct():
    text = VECTORS.read_bytes().decode("ascii")
    for family, cases in json.loads(text).items():
        assert family == "about" or len({json.dumps(case) for case in cases}) == len(cases) > 5


@pytest.mark.parametrize("vector", vectors("keys"), ids=lambda vector: ascii(vector["id"])[:20])
def test_key_is_that_of_the_vector(vector):
    keys.check(vector["id"])
    assert keys.session(vector["id"]) == vector["key"]
    assert keys.deleted(vector["id"]) == vector["deleted_key"]


@pytest.mark.parametrize("vector", vectors("refused_ids"), ids=lambda vector: vector["why"])
def test_id_is_refused_when_the_vector_requires_it(vector):
    with pytest.raises(InvalidConversationId):
        keys.check(vector["id"])


@pytest.mark.parametrize("vector", vectors("sessions"), ids=lambda vector: vector["what"])
def test_session_has_the_bytes_of_the_vector(vector):
    assert session_of(vector).to_json() == in_bytes(vector)
    assert Session.from_json(in_bytes(vector)) == session_of(vector)


@pytest.mark.parametrize("vector", vectors("accepted"), ids=lambda vector: vector["what"])
def test_value_is_read_when_another_program_may_write_it(vector):
    assert readable("conv-123", in_bytes(vector)) == session_of(vector)


@pytest.mark.parametrize("vector", vectors("refused"), ids=lambda vector: vector["why"])
def test_value_is_none_when_it_is_not_the_session_of_the_key(vector):
    assert readable("conv-123", in_bytes(vector)) is None


@pytest.mark.parametrize("vector", vectors("rendezvous"), ids=lambda vector: f"{vector['id']:.10}")
def test_ranking_is_that_of_the_vector(vector):
    assert rendezvous(vector["id"], vector["weights"]) == vector["ranking"]
    backwards = dict(reversed(vector["weights"].items()))
    assert rendezvous(vector["id"], backwards) == vector["ranking"]


@pytest.mark.slow
def test_node_program_agrees_with_every_vector(node):
    ran = subprocess.run([node, PROGRAM, "vectors", VECTORS], capture_output=True, text=True, check=False)
    cases = sum(len(value) for family, value in json.loads(VECTORS.read_text()).items() if family != "about")
    assert (ran.stdout, ran.stderr, ran.returncode) == (f"{cases} vectors, 0 failed\n", "", 0)
