from __future__ import annotations

import getpass
import json
import time

import pytest

from sessions_sticky import Price, SessionConflict, Turn, Usage, sessions
from sessions_sticky.queries import move_cost
from tests.sessions_sticky.calls import sample
from tests.sessions_sticky.cli.conftest import run

ACTOR = f"cli:{getpass.getuser()}"
MOVE_ALL = ("move-all", "a", "--to-provider", "b")


@pytest.fixture(autouse=True)
def some(manager):
    """Four sessions on provider a, two on b."""
    for number in range(6):
        manager.create(f"conv-{number}", "a" if number < 4 else "b", f"m{number % 2}", "ann")


def places():
    return {session.id: (session.provider, session.model) for session, *_ in all_entries()}


def all_entries():
    return [(entry.session, entry.expires_in) for entry in sessions.all().page(limit=1000).entries]


def everything(raw):
    """All that the store has."""
    return {key: raw.dump(key) for key in raw.scan_iter()}


def test_touch_extends_sessions_and_names_the_missing(raw):
    raw.expire("sentinel:session:conv-0", 100)
    found = run("touch", "conv-0", "missing")
    assert (found.code, found.out) == (1, "Touched 1 conversation\n")
    assert found.err == "no session 'missing'"
    assert raw.ttl("sentinel:session:conv-0") > 86_000
    assert run("touch", "conv-0", "conv-1", "conv-0").out == "Touched 2 conversations\n"


def test_rebind_moves_a_conversation_and_records_actor_and_reason():
    found = run("rebind", "conv-0", "--to-provider", "z", "--reason", "by hand")
    assert found.code == 0
    assert found.out == "Moved 1 conversation from a, model m0 to z, model m0\n"
    event = sessions.history("conv-0")[-1]
    assert (event.provider, event.model, event.reason, event.actor) == ("z", "m0", "by hand", ACTOR)
    document = json.loads(
        run("rebind", "conv-0", "--to-provider", "y", "--to-model", "n", "--reason", "x", "--json").out
    )
    assert document["session"] | {"created_at": 0} == {
        **{"id": "conv-0", "provider": "y", "model": "n", "external_id": "ann", "owner": "ann", "created_at": 0}
    }
    assert places()["conv-0"] == ("y", "n")


def test_rebind_changes_nothing_when_the_conversation_is_there_already():
    events = len(sessions.history("conv-0"))
    found = run("rebind", "conv-0", "--to-provider", "a", "--reason", "x")
    assert (found.code, found.out) == (0, "Already bound to a, model m0\n")
    assert len(sessions.history("conv-0")) == events


def test_rebind_fails_when_the_conversation_is_missing_or_was_moved(monkeypatch, manager):
    assert run("rebind", "missing", "--to-provider", "z", "--reason", "x").code == 1

    def conflict(*_, **__):
        raise SessionConflict("conv-0", sample("conv-0", provider="elsewhere"))

    monkeypatch.setattr(type(manager), "rebind", conflict)
    found = run("rebind", "conv-0", "--to-provider", "z", "--reason", "x")
    assert (found.code, found.out) == (1, "")
    assert "now bound to 'elsewhere'" in found.err


def test_delete_removes_sessions_by_id():
    found = run("delete", "conv-0", "missing", "conv-5", "--json")
    assert found.code == 1
    assert json.loads(found.out) == {"dry_run": False, "deleted": 2, "missing": ["missing"]}
    assert set(places()) == {"conv-1", "conv-2", "conv-3", "conv-4"}
    assert sessions.history("conv-0")[-1].actor == ACTOR


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--provider", "a"], {"conv-4", "conv-5"}),
        (["--provider", "a", "--model", "m1"], {"conv-0", "conv-2", "conv-4", "conv-5"}),
        (["--owner", "ann", "--model", "m0"], {"conv-1", "conv-3", "conv-5"}),
        (["--everything"], set()),
    ],
)
def test_delete_removes_what_matches_the_filters(options, left):
    found = run("delete", *options, "--yes")
    assert found.code == 0
    assert found.out.startswith(f"Deleted {6 - len(left)} conversations of ")
    assert set(places()) == left


@pytest.mark.parametrize(
    "arguments", [[], ["conv-0", "--provider", "a"], ["conv-0", "--everything"], ["--provider", "a", "--everything"]]
)
def test_delete_refuses_when_it_is_not_clear_which(arguments):
    found = run("delete", *arguments, "--yes")
    assert (found.code, found.out) == (2, "")
    assert len(places()) == 6


def test_move_all_moves_a_provider_or_one_of_its_models():
    found = run(*MOVE_ALL, "--model", "m1", "--to-model", "m9", "--yes")
    assert (found.code, found.out) == (0, "Moved 2 conversations from a, model m1 to b, model m9\n")
    assert run(*MOVE_ALL, "--yes", "--json", "--reason", "maintenance").out == '{"dry_run": false, "moved": 2}\n'
    assert set(places().values()) == {("b", "m0"), ("b", "m1"), ("b", "m9")}
    assert sessions.history("conv-1")[-1].reason == "move all"
    event = sessions.history("conv-0")[-1]
    assert (event.reason, event.actor) == ("maintenance", ACTOR)


@pytest.mark.parametrize(
    "arguments", [["--to-provider", "a"], ["--to-provider", "a", "--model", "m0", "--to-model", "m0"]]
)
def test_move_all_refuses_when_nothing_would_move(arguments):
    assert run("move-all", "a", *arguments, "--yes").code == 2


@pytest.mark.parametrize("ending", ["--yes", "--dry-run"])
@pytest.mark.parametrize(
    ("target", "warning"), [("c\x07", "Warning: no session is on c\\x07 yet. Is the name right?\n"), ("b", "")]
)
def test_move_all_warns_when_the_target_has_no_sessions(target, warning, ending):
    found = run("move-all", "a", "--to-provider", target, ending).err
    assert ("Warning" in found) is bool(warning)
    assert f"{found}\n".startswith(warning)


def test_move_all_does_not_warn_when_the_project_knows_the_target(settings):
    settings.SESSIONS_STICKY = {"PROVIDERS": ["a", "new"]}
    assert run("move-all", "a", "--to-provider", "new", "--yes").err.count("Warning") == 0


def test_drain_moves_and_warns_of_its_new_name():
    found = run("drain", "a", "--to-provider", "b", "--yes")
    assert (found.code, found.out) == (0, "Moved 4 conversations from a to b\n")
    assert found.err.startswith("Warning: `sessions drain` is now `sessions move-all`")
    assert sessions.history("conv-0")[-1].reason == "drain"


def test_move_all_moves_to_another_model_of_the_same_provider():
    assert run("move-all", "a", "--to-provider", "a", "--to-model", "m0", "--yes").out.startswith("Moved 2 ")


@pytest.mark.parametrize(
    "arguments", [("move-all", "missing", "--to-provider", "b"), ("delete", "--provider", "missing")]
)
def test_a_bulk_change_fails_when_the_index_has_nothing_of_it(arguments):
    found = run(*arguments, "--yes")
    assert found.code == 1
    assert "no indexed conversations of provider missing" in found.err


def test_delete_everything_is_done_when_there_is_nothing(raw):
    raw.flushdb()
    assert run("delete", "--everything", "--yes")[:2] == (0, "Deleted 0 conversations of all providers\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said", "document"),
    [
        (["touch", "conv-0", "missing"], "Would touch 1 conversation\n", {"touched": 1, "missing": ["missing"]}),
        (["delete", "conv-0"], "Would delete 1 conversation\n", {"deleted": 1, "missing": []}),
        (["delete", "--owner", "ann"], "Would delete 6 conversations of owner ann\n", {"deleted": 6}),
        (["delete", "--everything"], "Would delete 6 conversations of all providers\n", {"deleted": 6}),
        ([*MOVE_ALL], "Would move 4 conversations from a to b\n", {"moved": 4}),
        (
            ["rebind", "conv-0", "--to-provider", "b", "--reason", "x"],
            "Would move 1 conversation from a, model m0 to b, model m0\n",
            {
                "moved": 1,
                "session": {"id": "conv-0", "provider": "b", "model": "m0", "external_id": "ann", "owner": "ann"},
            },
        ),
    ],
)
def test_a_dry_run_prints_what_would_happen_and_changes_nothing(raw, arguments, said, document):
    raw.expire("sentinel:session:conv-0", 1000)
    before = everything(raw)
    assert run(*arguments, "--dry-run").out == said
    printed = json.loads(run(*arguments, "--dry-run", "--json").out)
    printed.get("session", {}).pop("created_at", None)
    assert printed == {"dry_run": True, **document}
    assert everything(raw) == before
    assert 0 < raw.ttl("sentinel:session:conv-0") <= 1000


def test_a_dry_run_of_a_move_prints_the_cached_tokens_that_it_loses(raw, monkeypatch):
    for price in (None, Price(input=3, cached_input=1)):
        turn = {"conversation_id": "conv-3", "at": time.time(), "provider": "a", "model": "m1", "price": price}
        sessions.record_turn(Turn(**turn, outcome="hit", usage=Usage(50_048, read=40_000 * bool(price))))
        money = ", at a cost of about 0.10" if price else ""
        first, second = run(*MOVE_ALL, "--dry-run").out.splitlines()
        assert first == f"1 conversation would lose about 50,048 cached prompt tokens{money}"
        assert second == "Would move 4 conversations from a to b"
    monkeypatch.setattr(move_cost, "MAX_PAGE", 3)
    assert run(*MOVE_ALL, "--dry-run").out.splitlines()[0].endswith(", by the most recently active ones")


@pytest.mark.parametrize(
    ("verb", "code", "looked", "changed"),
    [
        ("touch", 1, "Would touch 0 conversations\n", "Touched 0 conversations\n"),
        ("delete", 0, "Would delete 1 conversation\n", "Deleted 1 conversation\n"),
    ],
)
def test_a_dry_run_ends_as_the_change_when_a_session_is_unreadable(raw, verb, code, looked, changed):
    raw.set("sentinel:session:conv-0", b"no session", ex=1000)
    assert run(verb, "conv-0", "--dry-run")[:2] == (code, looked)
    assert run(verb, "conv-0")[:2] == (code, changed)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[*MOVE_ALL], ["delete", "--everything"]])
def test_bulk_change_is_refused_without_a_terminal_to_confirm_on(process, arguments):
    found = process(*arguments)
    assert (found.code, found.out) == (2, "")
    assert "--yes" in found.err
    assert list(places().values()).count(("a", "m0")) == 2


def test_a_bulk_change_is_refused_when_standard_input_is_closed(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)  # as Python has it after `<&-`
    found = run(*MOVE_ALL)
    assert (found.code, found.out) == (2, "")
    assert "--yes" in found.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "code", "moved"), [("y", 0, 4), ("YES", 0, 4), ("n", 1, 0), ("", 1, 0), ("yo", 1, 0)]
)
def test_a_bulk_change_asks_on_a_terminal(terminal, answer, code, moved):
    shown = terminal(*MOVE_ALL)
    shown.wait_for("Move 4 conversations from a to b? [y/N] ")
    shown.type(f"{answer}\n")
    assert shown.finish() == code
    assert [provider for provider, _ in places().values()].count("b") == 2 + moved
    assert ("nothing was changed" in shown.text) == (not moved)


@pytest.mark.slow
def test_a_question_is_answered_by_ctrl_c_with_no(terminal):
    shown = terminal("delete", "--everything")
    shown.wait_for("Delete 6 conversations of all providers? [y/N] ")
    shown.type("\x03")
    assert shown.finish() == 130
    assert len(places()) == 6


def test_reindex_finds_what_another_program_wrote(raw):
    raw.set("sentinel:session:theirs", sample("theirs").to_json(), ex=100)
    raw.delete("sentinel:{index}:all")
    found = run("reindex")
    assert (found.code, found.out) == (0, "Indexed 7 sessions\n")
    assert set(places()) == {"theirs", *(f"conv-{number}" for number in range(6))}
    assert json.loads(run("reindex", "--json").out) == {"sessions": 7}


def test_the_actor_goes_without_a_name_when_the_system_knows_none(monkeypatch):
    def no_user():
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", no_user)
    run("delete", "conv-0")
    assert sessions.history("conv-0")[-1].actor == "cli"
