"""The pages for those who watch the gateway, and the root."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, connection

from sentinel_project.gateway.models import ApiKey
from tests.gateway.asgi import Call


async def test_healthz_is_ok_when_the_process_answers(async_client):
    answer = await async_client.get("/healthz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@pytest.mark.usefixtures("session_cache")
def test_page_is_answered_when_asked_for_by_address(client, db, settings, path):
    settings.ALLOWED_HOSTS = ["gw.example.org"]
    assert client.get(path, headers={"Host": "10.1.2.3:8000"}).status_code == 200
    assert client.get("/admin/login/", headers={"Host": "10.1.2.3:8000"}).status_code == 400


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("session_cache")
async def test_readyz_is_ok_when_store_and_database_answer(async_client):
    answer = await async_client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "store": "ok", "database": "ok"}


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
@pytest.mark.usefixtures("session_cache")
async def test_readyz_is_unavailable_when_the_database_does_not_answer(async_client, monkeypatch, error):
    def fails():
        raise error("connection refused")

    monkeypatch.setattr(ApiKey.objects, "exists", fails)
    answer = await async_client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "store": "ok", "database": "unavailable"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("session_cache")
async def test_readyz_is_unavailable_when_the_tables_are_missing(async_client):
    @sync_to_async
    def rename(before: str, after: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {before} RENAME TO {after}")

    await rename("gateway_apikey", "hidden")
    try:
        answer = await async_client.get("/readyz")
    finally:
        await rename("hidden", "gateway_apikey")
    assert (answer.status_code, answer.json()["database"]) == (503, "unavailable")


async def test_readyz_leaves_no_session_when_it_looks(async_client, session_cache, db):
    await async_client.get("/readyz")
    assert session_cache.dbsize() == 0


def test_root_leads_to_the_admin_when_visited(client):
    answer = client.get("/")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


def test_root_answers_200_when_a_client_probes_it(client):
    answer = client.head("/")
    assert (answer.status_code, answer.content, answer.has_header("Location")) == (200, b"", False)
    assert client.post("/").status_code == 302


@pytest.mark.parametrize(("path", "expected"), [("/healthz", 200), ("/nothing", 404), ("/", 302)])
async def test_handler_uses_djangos_path_when_the_path_is_not_below_v1(path, expected):
    call = Call(path=path, method="GET")
    await call.start()
    call._take(call.outgoing.get_nowait())
    assert call.status == expected


@pytest.mark.slow
async def test_lifespan_starts_and_stops_when_the_server_does(monkeypatch):
    import asyncio

    from sentinel_project.gateway import auth
    from tests.gateway.asgi import handler
    from tests.gateway.conftest import FixedKeys

    ring = FixedKeys()
    monkeypatch.setattr("sentinel_project.gateway.background.keys", ring)
    monkeypatch.setattr(auth, "keys", ring)
    incoming, outgoing = asyncio.Queue(), asyncio.Queue()
    incoming.put_nowait({"type": "lifespan.startup"})
    living = asyncio.create_task(handler()({"type": "lifespan"}, incoming.get, outgoing.put))
    assert (await outgoing.get())["type"] == "lifespan.startup.complete"
    async with asyncio.timeout(5):
        while ring._version is None:  # noqa: ASYNC110 - made so by a thread
            await asyncio.sleep(0.001)
    incoming.put_nowait({"type": "lifespan.shutdown"})
    assert (await outgoing.get())["type"] == "lifespan.shutdown.complete"
    await asyncio.wait_for(living, 5)
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


@pytest.mark.django_db
def test_admin_starts_with_the_overview_for_those_who_may_view_sessions(client, admin_client, django_user_model):
    overview = "/admin/sessions_sticky/session/overview/"
    assert client.get("/admin/")["Location"] == "/admin/login/?next=/admin/"
    assert admin_client.get("/admin/")["Location"] == overview
    index = admin_client.get("/admin/all/")
    assert index.status_code == 200
    assert "Sentinel gateway" in index.text
    assert "View site" not in index.text
    client.force_login(django_user_model.objects.create_user("viv", is_staff=True))
    assert client.get("/admin/").status_code == client.get("/admin/all/").status_code == 200


def test_favicon_is_there(client):
    assert client.get("/favicon.ico")["Location"] == "/static/gateway/favicon.svg"
