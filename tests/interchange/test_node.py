"""A Node program and our manager on the same keys of a real server, each reading what the other wrote."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from sessions_sticky import Outcome, Session, SessionConflict, SessionManager, keys
from tests.conftest import REAL_STORES
from tests.interchange import vectors
from tests.sessions_sticky.calls import MOVE, OTHER, PROPOSAL, sample

TTL = 60
IDS = [vector["id"] for vector in vectors("keys")]


@pytest.fixture(params=REAL_STORES)
def store_name(request):
    return request.param


@pytest.fixture(autouse=True)
def ttl(settings):
    settings.SESSION_TTL_SECONDS = TTL


def fields_of(session):
    """Return a session as the Node program's lines have it."""
    return {**fields(session), "created_at": str(session.created_at)}


def fields(session):
    return {name: getattr(session, name) for name in Session.__struct_fields__}


@pytest.mark.parametrize("conversation_id", IDS, ids=lambda text: ascii(text)[:20])
def test_each_reads_and_extends_what_the_other_bound_whatever_the_id(call, foreign, raw, conversation_id):
    mine = call("resolve", conversation_id, **PROPOSAL).session
    raw.pexpire(keys.session(conversation_id), 9_000)
    assert foreign("use", id=conversation_id, ttl=TTL) == fields_of(mine)
    assert raw.pttl(keys.session(conversation_id)) > 50_000

    call("delete", conversation_id)
    assert foreign("look", id=conversation_id) is None
    theirs = sample(conversation_id, **OTHER)
    assert foreign("bind", session=fields_of(theirs), ttl=9) == fields_of(theirs)
    assert call("resolve", conversation_id, **PROPOSAL) == (theirs, Outcome.HIT)
    assert raw.pttl(keys.session(conversation_id)) > 50_000


@pytest.mark.parametrize("vector", vectors("sessions"), ids=lambda vector: vector["what"])
def test_each_reads_the_fields_that_the_other_wrote(manager, foreign, raw, vector):
    session = Session.from_json(vector["json"].encode())
    raw.set(keys.session(session.id), session.to_json(), ex=TTL)
    assert foreign("look", id=session.id) == vector["session"]
    raw.delete(keys.session(session.id))
    foreign("write_plainly", session=vector["session"], ttl=TTL)
    assert raw.get(keys.session(session.id)) == vector["json"].encode()
    assert manager.get(session.id) == session


def test_first_writer_wins_when_both_bind_at_once(manager, foreign):
    names = [f"conv-{n}" for n in range(200)]

    def bind_theirs():
        return [foreign("bind", session=fields_of(sample(name, **OTHER)), ttl=TTL) for name in names]

    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(bind_theirs)
        mine = [fields_of(manager.resolve(name, **PROPOSAL).session) for name in names]
    assert mine == theirs.result()
    assert mine == [fields_of(session) for session in map(SessionManager().get, names)]


def test_move_of_one_is_a_conflict_for_the_other(call, foreign):
    bound = call("create", "conv-123", **PROPOSAL)
    moved = call("rebind", bound, **MOVE)
    assert foreign("move", session=fields_of(bound), to={"provider": "late"}) is False
    assert foreign("move", session=fields_of(moved), to={"provider": "theirs"}) is True
    with pytest.raises(SessionConflict) as caught:
        call("rebind", moved, **MOVE)
    assert caught.value.current == Session(**{**fields(moved), "provider": "theirs"})


def test_move_of_another_program_keeps_the_ttl(manager, foreign, raw):
    bound = manager.create("conv-123", **PROPOSAL)
    raw.pexpire(keys.session("conv-123"), 9_000)
    foreign("move", session=fields_of(bound), to={"provider": "theirs"})
    assert 0 < raw.pttl(keys.session("conv-123")) <= 9_000


def test_session_stays_deleted_when_either_unbinds_it(manager, foreign):
    manager.resolve("conv-123", **PROPOSAL)
    assert foreign("unbind", id="conv-123", ttl=TTL) is True
    assert manager.resolve("conv-123", **OTHER).session.provider == OTHER["provider"]  # not restored
    assert manager.delete("conv-123") is True
    assert foreign("unbind", id="conv-123", ttl=TTL) is False


def test_plain_writer_is_listed_after_reindex_and_gets_a_ttl_when_used(manager, foreign, raw):
    foreign("write_plainly", session=fields_of(sample()), ttl=TTL * 10)
    assert manager.all().count() == 0
    assert manager.reindex() == 1
    assert [entry.session for entry in manager.all().page().entries] == [sample()]
    manager.resolve("conv-123", **PROPOSAL)
    assert 0 < raw.pttl(keys.session("conv-123")) <= TTL * 1000
