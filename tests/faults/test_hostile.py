"""Experiment 11, inside: hostile ids and parameters for the manager, the admin API and the pages of Django admin."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from django.contrib.admin.utils import quote as admin_quote
from django.contrib.auth.models import User
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from sessions_sticky import Session, SessionError, SessionManager, keys, sessions
from tests.conftest import REAL_STORES, begin_empty
from tests.faults.hostile import ANYTHING, CANARY, MARK, NASTY, TEXT, assert_no_foreign_keys, examples
from tests.sessions_sticky.admin.pages import BASE as PAGES
from tests.sessions_sticky.admin.pages import wait_for_jobs
from tests.sessions_sticky.api.calls import BASE as API
from tests.sessions_sticky.calls import method_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from pytest_django import Settings

EXAMPLES, FEW = 400, 40
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
PARAMETERS = ("provider", "model", "owner", "cursor", "limit", "format", "x")
FIELDS = ("id", "provider", "reason", "to_provider", "dry_run", "x")
BYSTANDER = Session(CANARY, CANARY, CANARY, CANARY, 1_700_000_000)


@pytest.fixture
def bystander(session_cache: redis.Redis, settings: Settings) -> redis.Redis:
    """A store with one bystander session."""
    settings.SESSIONS_STICKY = {"API_THROTTLE_RATE": None}
    session_cache.set(keys.session(CANARY), BYSTANDER.to_json(), ex=1_000)
    sessions.reindex()
    return session_cache


def assert_untouched(store: redis.Redis) -> None:
    """The bystander is as it was, and no other program's key was written."""
    assert store.get(keys.session(CANARY)) == BYSTANDER.to_json()
    assert_no_foreign_keys(store)


def attempt(call: Callable[[], Any]) -> bool:
    """Tell whether a call was taken; a refusal is one of the errors that the manager documents."""
    try:
        call()
    except (SessionError, ValueError) as exc:
        return not str(exc)  # a refusal says why
    return True


@pytest.mark.parametrize("store_name", REAL_STORES, indirect=True)
def test_manager_affects_one_session_when_ids_and_names_are_hostile(
    manager: SessionManager, raw: redis.Redis, store_name: str, experiment: Callable[..., None]
) -> None:
    taken = []

    @examples(EXAMPLES)
    @given(TEXT, TEXT, TEXT, TEXT)
    def try_out(conversation_id: str, provider: str, model: str, owner: str) -> None:
        if CANARY in (conversation_id, provider, model, owner):
            return
        begin_empty(raw)
        raw.set(keys.session(CANARY), BYSTANDER.to_json(), ex=1_000)
        manager.reindex()
        names = {"provider": provider, "model": model, "owner": owner}
        if attempt(lambda: manager.resolve(conversation_id, **names)):
            taken.append(conversation_id)
            assert not FORBIDDEN.search(conversation_id)
            found = manager.get(conversation_id)
            assert (found.id, found.provider, found.model, found.external_id) == (conversation_id, *names.values())
            assert raw.exists(b"sentinel:session:" + conversation_id.encode())
            listed = manager.filter(owner=owner).page().entries
            assert [entry.session.id for entry in listed] == [conversation_id]
            assert manager.filter(provider=provider).count() == 1
            moved = manager.rebind(found, provider=f"{provider}.", model=model, reason=f"{owner}.")
            assert manager.get(conversation_id) == moved
            assert manager.filter(model=model).rebind(to_provider=provider, reason=model) == 1
            assert {event.conversation_id for event in manager.history(conversation_id)} == {conversation_id}
            assert manager.filter(owner=owner).delete() == 1
        for call in (manager.get, manager.inspect, manager.touch, manager.history, manager.delete):
            attempt(lambda call=call: call(conversation_id))
        for name, value in names.items():
            attempt(lambda name=name, value=value: method_of(manager, "page")(**{name: value}))
            attempt(lambda name=name, value=value: method_of(manager, "delete_all")(**{name: value}))
        assert_untouched(raw)
        assert manager.all().count() == 1

    try_out()
    assert len(taken) > EXAMPLES / 10
    experiment(
        11,
        "Hostile ids, names and owners",
        setup=f"the manager on one {store_name}, one bystander session",
        fault=f"{EXAMPLES} quadruples: patterns (`*?[]`), braces, controls, lone surrogates, markup, look-alikes",
        figures={
            "accepted and found again": f"{len(taken)}",
            "bystander touched": "0",
            "keys outside `sentinel:`": "0",
        },
    )


def test_manager_raises_its_own_errors_when_parameters_are_arbitrary(
    bystander: redis.Redis,
) -> None:
    manager = SessionManager()

    @examples(EXAMPLES)
    @given(ANYTHING, ANYTHING, TEXT)
    def try_out(first: Any, second: Any, text: str) -> None:
        if CANARY in (first, second, text):
            return
        for name in ("get", "touch", "delete", "history", "inspect"):
            attempt(lambda name=name: getattr(manager, name)(first))
        attempt(lambda: manager.create(text, first, second, text))
        attempt(lambda: manager.create(first, text, text, second))
        attempt(lambda: manager.filter(provider=text).page(cursor=text))
        attempt(lambda: manager.filter(owner=text).page(limit=first))
        assert_untouched(bystander)

    try_out()


@pytest.fixture
def root(db: None) -> Client:
    """A client of a superuser; exceptions of views are raised."""
    client = Client(headers={"Host": "localhost"})
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def test_admin_api_affects_one_session_for_any_input(bystander: redis.Redis, root: Client) -> None:
    statuses = set()

    def call(method: str, path: str, body: Any = None) -> int:
        sent = json.dumps(body) if body is not None else ""
        response = root.generic(method, path, sent, "application/json")
        assert response.status_code < 500, response.content
        assert response.headers.get("Content-Type", "application/json").startswith("application/")
        statuses.add((method, response.status_code))
        return int(response.status_code)

    @examples(3 * FEW)
    @given(TEXT, TEXT, ANYTHING, st.sampled_from(PARAMETERS), st.sampled_from(FIELDS))
    def try_out(conversation_id: str, name: str, anything: Any, parameter: str, field: str) -> None:
        if CANARY in (conversation_id, name, anything):
            return
        at = f"{quote(conversation_id, safe='', errors='replace')}/"
        body = {"id": conversation_id, "provider": name, "model": name, "owner": name}
        if call("POST", API, body) == 201:
            assert call("POST", f"{API}rebind/{at}", {"provider": "p", "model": "m", "reason": name}) in (
                200,
                400,
                404,
                405,
            )
        call("POST", API, {**body, field: anything})
        call("POST", f"{API}rebind/", {"provider": name, "to_provider": "p", "reason": "r", field: anything})
        call("POST", API, anything)
        query = quote(name, safe="", errors="replace")
        for method, path in (("GET", "id"), ("GET", "history"), ("POST", "touch"), ("DELETE", "id")):
            call(method, f"{API}{path}/{at}")
        call("GET", f"{API}?{parameter}={query}&{parameter}={query}")
        call("POST", f"{API}delete/", {"owner": name})
        wait_for_jobs()
        assert_untouched(bystander)

    try_out()
    assert {("POST", 201), ("POST", 200), ("POST", 400), ("DELETE", 204), ("GET", 200), ("GET", 400)} <= statuses


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe", b"{", b'{"id":"a","id":"b"}', b"[" * 100_000, b'{"a":' * 50_000, b"NaN", b"\x00"]
)
@pytest.mark.parametrize("path", ["", "delete/", "rebind/", "rebind/conv-1/", "touch/conv-1/"])
def test_admin_api_answers_4xx_when_the_json_body_is_invalid(
    bystander: redis.Redis, root: Client, raw: bytes, path: str
) -> None:
    for content_type in ("application/json", "application/json; charset=utf-16", "text/plain", "multipart/form-data"):
        response = root.generic("POST", f"{API}{path}", raw, content_type)
        assert 400 <= response.status_code < 500
    assert_untouched(bystander)


def test_pages_show_markup_as_text_when_ids_and_names_are_hostile(bystander: redis.Redis, root: Client) -> None:
    for number, text in enumerate(each for each in NASTY if each.isprintable() and each.strip() and len(each) <= 256):
        if keys.session(text) != keys.session(CANARY):
            sessions.create(text, text, text, text, replace=True)
            sessions.create(f"{number}", MARK, MARK, MARK, replace=True)
    for path in ("", "overview/", "move-all/", f"?provider={quote(MARK)}", f"search/?q={quote(MARK)}"):
        response = root.get(f"{PAGES}{path}", follow=True)
        assert response.status_code == 200
        assert MARK not in response.text
        assert "<img src=x" not in response.text
    assert "&lt;script&gt;" in root.get(PAGES).text


def test_pages_affect_one_session_for_any_input(bystander: redis.Redis, root: Client) -> None:
    statuses = set()

    @examples(FEW)
    @given(TEXT, TEXT, st.sampled_from(["provider", "model", "owner", "cursor", "q", "mark", "fragment", "x"]))
    def try_out(conversation_id: str, text: str, field: str) -> None:
        if CANARY in (conversation_id, text):
            return
        sent = quote(text, safe="", errors="replace")
        segment = quote(admin_quote(conversation_id), safe="", errors="replace")
        answers = [
            *(root.get(f"{PAGES}{page}?{field}={sent}") for page in ("", "search/", "overview/", "move-all/")),
            *(root.get(f"{PAGES}{segment}/{page}/") for page in ("change", "history")),
            root.post(f"{PAGES}{segment}/touch/"),
        ]
        plain = {name: value.encode(errors="replace").decode() for name, value in (("a", conversation_id), ("b", text))}
        for form in (
            {"selected": plain["a"]},
            {"all": "1", "provider": plain["b"]},
            {"selected": BYSTANDER.to_json()[:-5]},
        ):
            target = {"to-provider": plain["b"], "to-model": plain["a"], "to-reason": plain["b"]}
            answers += [
                root.post(f"{PAGES}delete/", {**form, "confirmed": "1"}),
                root.post(f"{PAGES}move/", {**form, **target, "confirmed": "1"}),
            ]
        wait_for_jobs()
        assert {answer.status_code for answer in answers} <= {200, 302, 400, 404}
        assert not [answer for answer in answers if MARK in getattr(answer, "text", "")]
        statuses.update(answer.status_code for answer in answers)
        assert_untouched(bystander)

    try_out()
    assert statuses == {200, 302, 400, 404}
