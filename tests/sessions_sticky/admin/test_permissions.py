"""Who may see and do what on the pages, as far as the matrix (tests/faults/test_permission_matrix.py) does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from sessions_sticky import SessionManager, keys, sessions
from sessions_sticky.admin.model_admin import SessionAdmin
from tests.sessions_sticky.admin.pages import BASE, TARGET, binding, page_of
from tests.sessions_sticky.calls import sample

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

VALUE = b'{"id":"conv-1","provider":"openai","model":"gpt-4","external_id":"user-456","created_at":1700000000}'
SHOWN = binding(sample("conv-1"))


class Call(NamedTuple):
    """One way of calling; `permission` is the required permission, `status` the status of a successful answer."""

    method: str
    path: str
    permission: str
    status: int
    fields: dict[str, Any]

    def by(self, client: Client, **extra: Any) -> Any:
        return getattr(client, self.method.lower())(self.path, self.fields, **extra)


CALLS = {
    "list": Call("GET", BASE, "view", 200, {}),
    "head of list": Call("HEAD", BASE, "view", 200, {}),
    "search": Call("GET", f"{BASE}search/", "view", 302, {"q": "conv-1"}),
    "detail": Call("GET", f"{BASE}conv-1/change/", "view", 200, {}),
    "changes": Call("GET", f"{BASE}conv-1/history/", "view", 200, {}),
    "touch": Call("POST", f"{BASE}conv-1/touch/", "change", 302, {}),
    "ask for a target": Call("POST", f"{BASE}move/", "change", 200, {"selected": SHOWN}),
    "move": Call("POST", f"{BASE}move/", "change", 302, {"selected": SHOWN, **TARGET}),
    "move all": Call(
        "POST", f"{BASE}move/", "change", 302, {"all": "1", "provider": "openai", **TARGET, "confirmed": "1"}
    ),
    "ask to delete": Call("POST", f"{BASE}delete/", "delete", 200, {"selected": SHOWN}),
    "delete": Call("POST", f"{BASE}delete/", "delete", 302, {"selected": SHOWN, "confirmed": "1"}),
    "delete all": Call("POST", f"{BASE}delete/", "delete", 302, {"all": "1", "provider": "openai", "confirmed": "1"}),
    "get touch": Call("GET", f"{BASE}conv-1/touch/", "change", 302, {}),
    "get move": Call("GET", f"{BASE}move/", "change", 302, {"selected": SHOWN, **TARGET}),
    "get delete": Call("GET", f"{BASE}delete/", "delete", 302, {"selected": SHOWN, "confirmed": "1"}),
    "post to the list": Call("POST", BASE, "view", 405, {}),
    "post to the detail": Call("POST", f"{BASE}conv-1/change/", "view", 405, {}),
}
OTHER_FORMS = ("ask for a target", "move all", "ask to delete", "delete all")
"""What the matrix, with one form for each page, leaves out."""
CHANGING = [name for name, call in CALLS.items() if call.method == "POST" and call.status != 405]
USERS: dict[str, tuple[tuple[str, ...], dict[str, bool]]] = {
    "staff without permission": ((), {}),
    "view only": (("view",), {}),
    "add only": (("add",), {}),
    "change only": (("change",), {}),
    "delete only": (("delete",), {}),
    "all": (("view", "add", "change", "delete"), {}),
    "superuser": ((), {"is_superuser": True}),
    "no staff": (("view", "change", "delete"), {"is_staff": False}),
    "inactive": ((), {"is_superuser": True, "is_active": False}),
}


@pytest.fixture
def bound(session_cache: redis.Redis) -> redis.Redis:
    """The session `conv-1` with 100 s left, as another program wrote it, in the index."""
    session_cache.set("sentinel:session:conv-1", VALUE, ex=100)
    sessions.reindex()
    return session_cache


def assert_untouched(client: redis.Redis) -> None:
    assert client.get(keys.session("conv-1")) == VALUE
    assert 0 < client.pttl(keys.session("conv-1")) <= 100_000
    assert not client.keys("sentinel:job*")
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("name", OTHER_FORMS)
@pytest.mark.parametrize("who", USERS)
@pytest.mark.slow
def test_page_answers_according_to_permissions(
    login: Callable[..., Client], bound: redis.Redis, who: str, name: str
) -> None:
    actions, flags = USERS[who]
    call = CALLS[name]
    response = call.by(login(*actions, **flags))
    if flags.get("is_active") is False or flags.get("is_staff") is False:
        assert response.status_code == 302
        assert response.url.startswith("/admin/login/")
    elif flags.get("is_superuser") or call.permission in actions:
        assert response.status_code == call.status
        return
    else:
        assert response.status_code == 403
    assert "user-456" not in response.text
    assert_untouched(bound)


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.status < 400])
def test_page_answers_403_when_a_subclass_denies_its_permission(
    ada: Client, bound: redis.Redis, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    call = CALLS[name]
    monkeypatch.setattr(SessionAdmin, f"has_{call.permission}_permission", lambda *args: False, raising=False)
    assert call.by(ada).status_code == 403
    assert_untouched(bound)


@pytest.mark.parametrize("name", CHANGING)
def test_page_acts_for_a_user_whose_name_is_not_text(
    ada: Client, bound: redis.Redis, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(User, "get_username", lambda user: UUID(int=user.pk))
    assert CALLS[name].by(ada).status_code == CALLS[name].status


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_page_answers_403_when_the_csrf_token_is_missing(
    make_user: Callable[..., Any], bound: redis.Redis, name: str
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user(is_superuser=True))
    response = CALLS[name].by(client)
    assert (response.status_code, "The form was not accepted" in response.text) == (403, True)
    assert_untouched(bound)


@pytest.mark.parametrize("name", CHANGING)
def test_page_acts_when_the_csrf_token_is_that_of_its_form(
    make_user: Callable[..., Any], bound: redis.Redis, name: str
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user(is_superuser=True))
    client.get(BASE)
    call = CALLS[name]
    fields = {**call.fields, "csrfmiddlewaretoken": client.cookies["csrftoken"].value}
    assert call._replace(fields=fields).by(client).status_code == call.status


@pytest.mark.parametrize("method", ["get", "head"])
@pytest.mark.parametrize(
    ("path", "permission", "target"),
    [
        ("move/", "change", ""),
        ("move-back/", "change", ""),
        ("delete/", "delete", ""),
        ("conv-1/touch/", "change", "conv-1/change/"),
        (f"operations/{'ab' * 16}/stop/", "view", f"operations/{'ab' * 16}/"),
        (f"operations/{'ab' * 16}/resume/", "view", f"operations/{'ab' * 16}/"),
    ],
)
def test_page_of_a_form_redirects_when_it_is_only_read(
    login: Callable[..., Client], bound: redis.Redis, path: str, permission: str, target: str, method: str
) -> None:
    fields = {"selected": SHOWN, "confirmed": "1", "all": "1", "moved_from": "openai", **TARGET}
    response = getattr(login("view", permission), method)(f"{BASE}{path}", fields)
    assert (response.status_code, response.url) == (302, f"{BASE}{target}")
    assert getattr(login(name="nel"), method)(f"{BASE}{path}", fields).status_code == 403
    assert_untouched(bound)


def test_page_of_a_form_leads_on_after_the_login_had_expired(
    client: Client, make_user: Callable[..., Any], bound: redis.Redis
) -> None:
    user = make_user("view", "delete")
    user.set_password("secret")
    user.save()
    asked = client.post(f"{BASE}delete/", {"selected": SHOWN})
    done = client.post(asked.url, {"username": "ada", "password": "secret"}, follow=True)
    assert (done.status_code, done.redirect_chain[-1][0]) == (200, BASE)
    assert "Nothing was changed. Choose again what to do." in done.text
    assert_untouched(bound)


def test_page_of_a_form_redirects_to_the_index_for_a_user_who_may_not_view(
    login: Callable[..., Client], bound: redis.Redis
) -> None:
    assert login("change").get(f"{BASE}move/").url == "/admin/"


@pytest.mark.parametrize("path", ["move/", "move-back/", "delete/", "conv-1/touch/"])
def test_page_of_a_form_refuses_other_methods(login: Callable[..., Client], bound: redis.Redis, path: str) -> None:
    assert login(is_superuser=True).put(f"{BASE}{path}").status_code == 405


def test_forms_have_the_csrf_token_when_they_post(login: Callable[..., Client], bound: redis.Redis) -> None:
    client = login(is_superuser=True)
    for path in (BASE, page_of("conv-1")):
        page = client.get(path).text
        forms = page.partition('id="content-start"')[2].split('<form method="post"')[1:]
        assert forms
        for form in forms:
            assert "csrfmiddlewaretoken" in form.partition("</form>")[0]


@pytest.mark.parametrize("path", ["add/", "conv-1/delete/", "conv-1/", "x/y/change/"])
def test_page_answers_404_when_it_is_one_of_a_table(
    login: Callable[..., Client], bound: redis.Redis, path: str
) -> None:
    assert login(is_superuser=True).get(f"{BASE}{path}", follow=True).status_code == 404


def test_history_names_the_user_when_a_page_changes_something(
    login: Callable[..., Client], session_cache: redis.Redis
) -> None:
    session = SessionManager().create("conv-1", "openai", "gpt-4", "user-456")
    login("change", name="vera").post(f"{BASE}move/", {"selected": binding(session), **TARGET})
    assert [event.actor for event in sessions.history("conv-1")] == ["gateway", "vera"]


def test_admin_never_allows_to_add_when_asked_for_links(login: Callable[..., Client], bound: redis.Redis) -> None:
    text = login(is_superuser=True).get("/admin/all/").text
    assert f"{BASE}add/" not in text
    assert SessionAdmin.has_add_permission(object(), object()) is False  # type: ignore[arg-type]
