"""Experiment 12: who may do what, over every route that the URL configuration has, each method, each kind of user."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.db import connection, transaction
from django.test import Client, override_settings
from django.urls import URLPattern, get_resolver
from rest_framework.authtoken.models import Token

from sentinel_project.gateway.models import ApiKey
from sessions_sticky import sessions
from sessions_sticky.jobs.job import Plan
from sessions_sticky.jobs.service import Jobs
from sessions_sticky.queries.filters import Filters
from tests.conftest import patient_config
from tests.faults.permission_roles import BY_TOKEN, ROLES, WITH_CSRF, Cell, Role, cells
from tests.faults.permission_table import KINDS, METHODS, ROUTES, SAFE, Route
from tests.sessions_sticky.admin.pages import binding, wait_for_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import redis
    from pytest_django import DjangoDbBlocker

VALUE = b'{"id":"conv-1","provider":"openai","model":"gpt-4","external_id":"user-456","created_at":1700000000}'
SECRETS = ("user-456", "owner-of-a-key", "sk-sentinel-", "name-of-a-group", "name-of-a-user")
TABLES = {
    **dict.fromkeys((ApiKey, Group, Token, LogEntry), "*"),
    User: "id, username, password, is_superuser, is_staff, email",
}
CSRF = "c" * 32
DUMP = """
local keys, found = redis.call('KEYS', '*'), {}
table.sort(keys)
for _, key in ipairs(keys) do
  found[#found + 1] = {key, redis.call('DUMP', key)}
end
return {redis.call('PTTL', KEYS[1]), found}
"""
"""What a session has left, and the bytes of all keys, in one round trip: this is asked after thousands of calls."""
IDLE_MS = 3_600_000


def patterns(entries: Iterable[Any], prefix: str = "") -> Iterator[str]:
    """Every route of a URL configuration, as its parts are written."""
    for entry in entries:
        path = f"{prefix}{entry.pattern}"
        if isinstance(entry, URLPattern):
            yield path
        else:
            yield from patterns(entry.url_patterns, path)


def test_table_has_every_route_when_one_is_added(experiment: Callable[..., None]) -> None:
    found = list(patterns(get_resolver().url_patterns))
    assert sorted(set(found)) == sorted(ROUTES)  # the start page stands before Django's
    tried = sum(1 for route in ROUTES.values() if route.door != "key" for _ in cells(route))
    by_key = [route for route in ROUTES.values() if route.door == "key"]
    experiment(
        12,
        "Permission matrix",
        setup="every route of the URL configuration",
        fault=f"{len(METHODS)} methods, anonymous and as {len(ROLES)} kinds of users, with and without a CSRF token,"
        f" by a token; {len(KINDS)} kinds of chat keys and invalid ones",
        figures={
            "routes": f"{len(ROUTES)}",
            "calls": f"{tried + len(by_key) * len(METHODS) * len(KINDS)}",
            "answered differently from the table": "0",
            "refused, but data revealed or changed": "0",
        },
    )


class Ground:
    """What there is to see and to spoil: a session, an operation, keys, groups, users, and a client for each role."""

    def __init__(self, store: redis.Redis) -> None:
        self._store = store
        self._dump = store.register_script(DUMP)
        self._client = Client(enforce_csrf_checks=True)  # each new one loads the middleware
        self._expires_at = int(time.time() * 1_000) + IDLE_MS
        store.set("sentinel:session:conv-1", VALUE, pxat=self._expires_at)
        sessions.reindex()
        job = Jobs().start(Plan(Filters(provider="missing")), actor="operator")
        wait_for_jobs()
        ApiKey.objects.issue("owner-of-a-key")
        seen = User.objects.create(username="name-of-a-user")
        Token.objects.create(user=seen, key="sk-sentinel-token")
        found = sessions.get("conv-1")
        assert found
        self._names = {
            "{job}": job.key,
            "{binding}": binding(found),
            "{key}": str(ApiKey.objects.get().pk),
            "{user}": str(seen.pk),
            "{group}": str(Group.objects.create(name="name-of-a-group").pk),
            "{type}": str(ContentType.objects.get_for_model(Group).pk),
        }
        permissions = list(Permission.objects.select_related("content_type"))
        users = {name: _user(name, role, permissions) for name, role in ROLES.items()}
        self._cookies = {name: _cookies(user) for name, user in users.items()}
        self._tokens = {name: Token.objects.create(user=user).key for name, user in users.items()}
        self._changes, self._tables = -1, []
        _, self._dumps = self._dumped()

    def _dumped(self) -> tuple[bool, list[list[bytes]]]:
        left, found = self._dump(["sentinel:session:conv-1"])
        return left <= IDLE_MS, found

    def _rows(self) -> list[list[tuple[Any, ...]]]:
        """Return the tables, which are read again only after SQLite has changed a row."""
        changes = connection.connection.total_changes
        if changes != self._changes:
            self._changes, self._tables = changes, []
            with connection.cursor() as cursor:
                for model, columns in TABLES.items():
                    cursor.execute(f"SELECT {columns} FROM {model._meta.db_table} ORDER BY 1")
                    self._tables.append(cursor.fetchall())
        return self._tables

    def restore(self) -> None:
        """Put the store back as it was, after a call that changed it or that failed the test.

        Also when it expires: lists correct the index of sessions that expire a minute later than it says.
        """
        wait_for_jobs()
        self._changes = -1
        with self._store.pipeline(transaction=False) as pipeline:
            pipeline.flushdb()
            for key, dump in self._dumps:
                pipeline.restore(key, self._expires_at, dump, absttl=True)
            pipeline.execute()

    def state(self) -> Any:
        """Everything that a refused call must leave alone."""
        return self._dumped(), self._rows()

    def call(self, route: Route, cell: Cell) -> Any:
        """Make the call of a cell."""
        client, headers = self._client, {}
        client.cookies.clear()
        if cell.way == BY_TOKEN:
            headers["Authorization"] = f"Token {self._tokens[cell.who]}"
        elif cell.who:
            client.cookies.load(self._cookies[cell.who])
        if cell.way == WITH_CSRF:
            client.cookies["csrftoken"] = headers["X-CSRFToken"] = CSRF
        path, body = self._filled(route.path), {name: self._filled(value) for name, value in route.body.items()}
        if cell.method == "POST" and route.door == "pages":
            return client.post(path, body, headers=headers)
        data = () if cell.method in SAFE else (json.dumps(body), "application/json")
        return client.generic(cell.method, path, *data, headers=headers)

    def _filled(self, text: str) -> str:
        for name, value in self._names.items():
            text = text.replace(name, value)
        return text


def _user(name: str, role: Role, permissions: list[Permission]) -> User:
    user = User.objects.create(username=name, **role.flags)
    given = []
    for permission in permissions:
        action, _, model = permission.codename.partition("_")
        if action in role.actions and role.covers(model if permission.content_type.app_label != "sessions" else ""):
            given.append(permission)
    user.user_permissions.add(*given)
    return user


def _cookies(user: User) -> dict[str, str]:
    client = Client()
    client.force_login(user)
    return {name: morsel.value for name, morsel in client.cookies.items()}


def expected(route: Route, cell: Cell) -> int | str:
    """The status; a redirection to the login page is `login`."""
    needs, seen, unseen = route.call(cell.method)
    role = cell.role if cell.role and cell.role.is_active else None
    status = seen if role and role.may("view", route.model) else unseen
    if route.door == "exempt":
        return status
    if route.door == "api" and role is None:
        return 401
    if cell.is_forged:
        return 403
    if route.door == "open":
        return status
    if route.door == "pages" and not (role and role.flags.get("is_staff")):
        return route.outside.get(cell.method, route.outside["other"])
    return status if role and role.may(needs, route.model) else route.refused


def answered(response: Any) -> int | str:
    is_login = response.status_code == 302 and response.url.startswith("/admin/login/")
    return "login" if is_login else int(response.status_code)


def is_change(cell: Cell, status: int | str) -> bool:
    """Whether such an answer may have changed something; deleting what does not exist is recorded too."""
    return cell.method not in SAFE and (status in (200, 201, 204, 302) or (cell.method, status) == ("DELETE", 404))


@pytest.fixture(scope="module")
def ground(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, valkey_url: str, bare_pages: None
) -> Iterator[Ground]:
    """One for all routes, for each call is undone: to make the users and their logins takes a tenth of the time."""
    caches = {"default": patient_config(valkey_url)}
    with (
        override_settings(CACHES=caches, SESSIONS_STICKY={"API_THROTTLE_RATE": None}),
        django_db_blocker.unblock(),
        transaction.atomic(),
    ):
        store = cache.client.get_client()
        store.flushdb()
        yield Ground(store)
        transaction.set_rollback(True)


@pytest.mark.django_db
@pytest.mark.parametrize("pattern", [pattern for pattern, route in ROUTES.items() if route.door != "key"])
def test_route_answers_as_in_the_table_for_every_caller(ground: Ground, pattern: str) -> None:
    route, wrong = ROUTES[pattern], []
    ground.restore()
    before = ground.state()
    for cell in cells(route):
        with transaction.atomic():
            response = ground.call(route, cell)
            found, wanted = answered(response), expected(route, cell)
            if found != wanted:
                wrong.append(f"{cell}: {found}, not {wanted}")
            elif not is_change(cell, found):
                assert ground.state() == before, cell
            if found in (204, 401, 403, 409, "login"):
                assert not [secret for secret in SECRETS if secret in response.text], cell
            transaction.set_rollback(True)
        if is_change(cell, found):
            ground.restore()
    assert not wrong, "\n".join(wrong)
