"""What operators do with providers: drain, try, hold, release; in all workers."""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import re
from collections.abc import Callable, Iterator
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.test import Client

from sentinel_project.gateway.provider_status import statuses
from sentinel_project.gateway.providers import actions, controls
from sentinel_project.gateway.providers.actions import Action, ControlsUnavailable, UnknownProvider
from sentinel_project.gateway.providers.controls import Control, follow_forever
from sentinel_project.gateway.providers.current import configured, providers
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.health_sync import share_forever
from sentinel_project.gateway.providers.slots import PROVIDER, Failure
from sentinel_project.gateway.routing import process
from sessions_sticky import cache_config, sessions
from sessions_sticky.queries.doctor import examine
from tests.gateway.asgi import outcome_of, say
from tests.servers import free_port
from tests.waiting import until

if TYPE_CHECKING:
    import redis
    from django.contrib.auth.models import User
    from pytest_django import Settings

PAGE = "/admin/sessions_sticky/session/providers/"
CHANGE = f"{PAGE}change/"
API = "/api/providers/"
DOWN = Failure(Cools.PROVIDER, error="HTTP 503")


@pytest.fixture(autouse=True)
def _no_controls() -> Iterator[None]:
    controls.take_over({})
    yield
    controls.take_over({})


async def test_drained_provider_takes_no_new_conversations_and_keeps_its_own(gateway: Settings, bound_to_north: str):
    await asyncio.to_thread(actions.act, "north", Action.DRAIN, by="ann")
    for number in range(20):
        assert outcome_of(await say(f"new-{number}")) == (200, "created", "south")
    assert outcome_of(await say(bound_to_north)) == (200, "hit", "north")
    await asyncio.to_thread(actions.act, "north", Action.RELEASE, by="ann")
    assert {outcome_of(await say(f"later-{number}"))[2] for number in range(20)} == {"north", "south"}


async def test_held_provider_keeps_its_conversations_when_it_is_lost(gateway: Settings, bound_to_north: str):
    now = process.health.now()
    lost = {"failures": 3, "cooling_until": now + 60, "failing_since": now - 100, "failed_at": now}
    process.health.failed("north", "model-a", DOWN)
    state = process.health.states["north"][PROVIDER]
    process.health.states["north"][PROVIDER] = type(state)(**lost)
    await asyncio.to_thread(actions.act, "north", Action.HOLD, by="ann")
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    assert (await sessions.aget(bound_to_north)).provider == "north"
    await asyncio.to_thread(actions.act, "north", Action.RELEASE, by="ann")
    assert outcome_of(await say(bound_to_north)) == (200, "rebound", "south")


@pytest.mark.slow
async def test_try_ends_the_cooldown_in_other_workers(gateway: Settings):
    worker = Health(30, providers)
    task = asyncio.create_task(share_forever(worker, providers))
    try:
        worker.failed("north", "model-a", DOWN)
        await until(lambda: cache.keys("sentinel:provider:north:*"))
        await asyncio.to_thread(actions.act, "north", Action.TRY, by="ann")
        await until(lambda: not worker.is_cooling("north", "model-a"))
        assert worker.unanswered_since("north") is not None  # until it answers
        await asyncio.to_thread(actions.act, "south", Action.TRY, by="ann")  # which is healthy
    finally:
        task.cancel()


async def test_other_worker_follows_the_controls_and_keeps_them_when_the_cache_is_down(
    gateway: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(controls, "POLL_SECONDS", 0.02)
    await asyncio.to_thread(actions.act, "north", Action.DRAIN, by="ann")
    cache.set("sentinel:provider-hold:north", "of another program", None)
    controls.take_over({})  # as in another worker
    task = asyncio.create_task(follow_forever(lambda: ["north", "south"]))
    try:
        await until(lambda: controls.drained() == {"north"})
        assert not controls.is_set("north", Control.HOLD)
        gateway.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
        await until(lambda: "controls of providers could not be read" in caplog.text)
        assert controls.drained() == {"north"}
        assert controls.latest(["north"])["north"][Control.DRAIN].by == "ann"
    finally:
        task.cancel()


@pytest.mark.parametrize("value", [b"{", b"\xff", b"[" * 100_000, b"", b"7", {"a": "hash"}])
def test_controls_are_read_when_one_belongs_to_another_program(
    gateway: Settings, session_cache: redis.Redis, value: bytes | dict[str, str]
):
    key = "sentinel:provider-hold:north"
    session_cache.hset(key, mapping=value) if isinstance(value, dict) else session_cache.set(key, value)
    actions.act("north", Action.DRAIN, by="ann")
    actions.act("south", Action.HOLD, by="ann")
    found = controls.read(["north", "south"])
    assert {name: set(settings) for name, settings in found.items()} == {
        "north": {Control.DRAIN},
        "south": {Control.HOLD},
    }


def test_action_is_refused_when_it_cannot_be_shared(gateway: Settings):
    gateway.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
    for action in Action:
        with pytest.raises(ControlsUnavailable, match="nothing was changed"):
            actions.act("north", action, by="ann")
    assert controls.drained() == frozenset()


def test_action_names_the_providers_when_one_is_unknown(gateway: Settings):
    with pytest.raises(UnknownProvider, match=r"Unknown provider 'nrth': must be one of north, south\."):
        actions.act("nrth", Action.DRAIN, by="ann")


def test_providers_follow_drains_and_the_file(gateway: Settings):
    assert providers() is configured()
    actions.act("north", Action.DRAIN, by="ann")
    assert [(each.name, each.weight) for each in providers()] == [("north", 0), ("south", 1)]
    assert providers() is providers()
    assert actions.only_here("south") == ["model-a", "model-b"]
    assert actions.only_here("north") == []
    gateway.SENTINEL_PROVIDERS = gateway.SENTINEL_PROVIDERS[:1]
    assert [(each.name, each.weight) for each in providers()] == [("north", 0)]
    (status,) = statuses()
    assert (status.weight, status.share, status.is_drained, status.takes_new) == (1, 0, True, False)


def test_action_is_logged_with_its_author(gateway: Settings, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        actions.act("north", Action.HOLD, by="ann")
    assert "provider 'north': hold by 'ann'" in caplog.text


@pytest.mark.django_db
def test_page_asks_before_it_acts_and_logs_it(gateway: Settings, admin_client: Client, admin_user: User):
    page = admin_client.get(PAGE).text
    assert "None in the last 30 days." in page
    assert 'value="drain"' in page
    assert 'value="try"' not in page  # it does not cool down
    assert 'value="release"' not in page
    fields = {"provider": "north", "action": "drain"}
    asked = admin_client.get(CHANGE, fields)
    assert "It will take no new conversations." in asked.text
    assert controls.drained() == frozenset()
    done = admin_client.post(CHANGE, fields, follow=True)
    assert done.redirect_chain == [(PAGE, 302)]
    assert "north takes no new conversations now. All workers follow within a second." in done.text
    assert controls.drained() == {"north"}
    assert 'value="release"' in done.text
    assert [(each.user, each.change_message) for each in LogEntry.objects.all()] == [
        (admin_user, "Provider 'north': drain")
    ]
    alone = admin_client.get(CHANGE, {**fields, "provider": "south"}).text
    assert "they will be refused: model-a, model-b" in alone
    assert "are failing or cooling down" not in alone


@pytest.mark.django_db
def test_page_warns_when_the_other_providers_of_a_drained_one_are_down(gateway: Settings, admin_client: Client):
    fields, warning = {"provider": "north", "action": "drain"}, "are failing or cooling down"
    assert warning not in admin_client.get(CHANGE, fields).text
    process.health.failed("south", "model-a", Failure(Cools.MODEL, retry_after=9, is_alive=True, error="HTTP 429"))
    assert f"{warning}; new conversations may be refused: model-a</p>" in admin_client.get(CHANGE, fields).text
    process.health.failed("south", "model-a", DOWN)
    assert f"{warning}; new conversations may be refused: model-a, model-b</p>" in admin_client.get(CHANGE, fields).text
    assert warning not in admin_client.get(CHANGE, {**fields, "action": "hold"}).text


@pytest.mark.django_db
@pytest.mark.parametrize("fields", [{"provider": "nrth", "action": "drain"}, {"provider": "north", "action": "x"}, {}])
def test_page_answers_404_for_an_unknown_provider_or_action(
    gateway: Settings, admin_client: Client, fields: dict[str, str]
):
    assert admin_client.get(CHANGE, fields).status_code == 404
    assert admin_client.post(CHANGE, fields).status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("action", "language", "title"),
    [("drain", "en", "Drain: north"), ("release", "en", "Release: north"), ("release", "de", "Freigeben: north")],
)
def test_recent_actions_name_the_provider_and_the_action(
    gateway: Settings, admin_client: Client, action: str, language: str, title: str
):
    headers = {"accept-language": language}
    admin_client.post(CHANGE, {"provider": "north", "action": action}, headers=headers)
    assert title in admin_client.get("/admin/all/", headers=headers).text


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Held: while it is failing, its conversations spill over but do not move."),
        ("de", "Gehalten: Solange er ausfällt, weichen seine Konversationen aus, werden aber nicht verschoben."),
    ],
)
def test_page_says_when_a_hold_takes_effect(gateway: Settings, admin_client: Client, language: str, text: str):
    actions.act("north", Action.HOLD, by="ann")
    assert text in admin_client.get(PAGE, headers={"accept-language": language}).text


@pytest.mark.django_db
def test_page_reports_that_nothing_was_changed_when_the_store_is_down(gateway: Settings, admin_client: Client):
    gateway.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
    done = admin_client.post(CHANGE, {"provider": "north", "action": "hold"}, follow=True)
    assert "The session store is unavailable: nothing was changed." in done.text
    assert "the outages are unknown" in done.text
    assert not LogEntry.objects.exists()


@pytest.fixture
def viewer(django_user_model: Any) -> Callable[..., Client]:
    """Log in a user with permissions on sessions."""
    from django.contrib.auth.models import Permission

    def login(*names: str) -> Client:
        user = django_user_model.objects.create_user(f"viv-{'-'.join(names)}", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=[f"{name}_session" for name in names]))
        client = Client()
        client.force_login(user)
        return client

    return login


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("names", "see", "act"), [(("view",), 200, 403), (("view", "change"), 200, 302), (("change",), 403, 302)]
)
def test_page_needs_the_permissions_of_sessions(
    gateway: Settings, viewer: Callable[..., Client], names: tuple[str, ...], see: int, act: int
):
    client = viewer(*names)
    assert client.get(PAGE).status_code == see
    assert client.post(CHANGE, {"provider": "north", "action": "hold"}).status_code == act
    assert controls.is_set("north", Control.HOLD) is (act == 302)
    if see == 200:
        assert ('value="drain"' in client.get(PAGE).text) is (act == 302)


@pytest.mark.django_db
def test_api_lists_providers_and_acts(gateway: Settings, admin_client: Client):
    north, _ = admin_client.get(API).json()["providers"]
    assert (north["name"], north["state"], north["share"], north["failing_since"]) == ("north", "healthy", 0.5, None)
    assert north["requests_per_minute"] == 0
    body = json.dumps({"action": "drain"})
    answered = admin_client.post(f"{API}north/", body, content_type="application/json")
    assert answered.status_code == 200
    assert (answered.json()["is_drained"], answered.json()["share"]) == (True, 0)
    assert LogEntry.objects.get().object_repr == "Provider 'north': drain"
    assert admin_client.post(f"{API}nrth/", body, content_type="application/json").status_code == 404
    gateway.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
    down = admin_client.post(f"{API}north/", body, content_type="application/json")
    assert (down.status_code, down.headers["Retry-After"]) == (503, "1")
    assert down.json()["detail"] == "The session store is unavailable: nothing was changed."
    assert admin_client.get(API).json()["providers"][0]["requests_per_minute"] is None


@pytest.mark.django_db
@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"\xff", b"7", b"{", b"{}", b'{"action": "x"}', b'{"action": "\\ud800"}']
)
def test_api_reports_a_problem_when_a_body_is_not_an_action(gateway: Settings, admin_client: Client, body: bytes):
    answer = admin_client.post(f"{API}north/", body, content_type="application/json")
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    if b'"action"' in body:
        assert answer.json()["errors"] == {"action": ["Must be one of drain, try, hold, release."]}


@pytest.mark.django_db
@pytest.mark.parametrize(("names", "read", "act"), [(("view",), 200, 403), (("change",), 403, 200), ((), 403, 403)])
def test_api_needs_the_permissions_of_sessions(
    gateway: Settings, viewer: Callable[..., Client], names: tuple[str, ...], read: int, act: int
):
    client = viewer(*names)
    assert client.get(API).status_code == read
    body = json.dumps({"action": "try"})
    assert client.post(f"{API}north/", body, content_type="application/json").status_code == act


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("gateway", "providers", *arguments, stdout=out)
    return out.getvalue()


def test_command_shows_and_changes_providers(gateway: Settings):
    title, north, _ = run().splitlines()
    assert title.split()[:2] == ["provider", "state"]
    assert north.split()[:2] == ["north", "healthy"]
    process.health.failed("north", "model-a", DOWN)
    assert "failing" in run("drain", "north").splitlines()[1]
    assert "HTTP 503" in run("hold", "north").splitlines()[1]
    assert run().splitlines()[1].split()[-4:] == ["1", "(0%)", "drain,", "hold"]
    (first, _) = json.loads(run("--json"))["providers"]
    assert (first["name"], first["is_held"], first["error"]) == ("north", True, "HTTP 503")
    assert run("release", "north").splitlines()[1].split()[-3:] == ["1", "(0%)", "-"]
    process.health.states = {}
    assert run().splitlines()[1].split()[-3:] == ["1", "(50%)", "-"]


def test_command_acts_when_the_system_knows_no_user(gateway: Settings, monkeypatch: pytest.MonkeyPatch):
    def no_user() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", no_user)
    run("hold", "north")
    assert controls.latest(["north"])["north"][Control.HOLD].by == "cli"


@pytest.mark.parametrize(("arguments", "code"), [(["drain"], 2), (["drain", "nrth"], 2), (["x", "north"], 1)])
def test_command_refuses_what_it_does_not_know(gateway: Settings, arguments: list[str], code: int):
    with pytest.raises(CommandError) as raised:
        run(*arguments)
    assert raised.value.returncode == code


def test_command_reports_an_unavailable_store(gateway: Settings):
    gateway.CACHES = {"default": cache_config(f"redis://127.0.0.1:{free_port()}/0")}
    with pytest.raises(CommandError, match="nothing was changed") as raised:
        run("hold", "north")
    assert raised.value.returncode == 3
    assert run().splitlines()[1].split()[4:8] == ["-"] * 4


def test_doctor_finds_a_provider_that_fails(gateway: Settings):
    def found() -> list[tuple[str, str]]:
        return [(str(each.level), each.message) for each in examine() if each.subject == "provider"]

    assert found() == [("ok", "north is healthy"), ("ok", "south is healthy")]
    actions.act("north", Action.DRAIN, by="ann")
    actions.act("south", Action.HOLD, by="ann")
    assert found() == [
        ("note", "north takes no new conversations"),
        ("note", "south is held: its conversations do not move"),
    ]
    process.health.record_pace("south", is_slow=True)
    process.health.failed("north", "model-a", DOWN)
    (level, message), slow = found()
    assert (level, message[:30]) == ("error", "north has been failing since 2")
    assert message.endswith(" UTC (HTTP 503)")
    assert slow == ("warning", "south begins its streams too slowly")
    process.health.failed("south", "model-a", Failure(Cools.MODEL, error="HTTP 429"))
    state = process.health.states["north"][PROVIDER]
    lost = type(state)(failures=3, failing_since=0, failed_at=100, unanswered_since=0, error="x")
    process.health.states["north"][PROVIDER] = lost
    (_, message), limited = found()
    assert message.endswith("(x). Its conversations move permanently with their next chat")
    assert limited == ("warning", "south is cooling down (HTTP 429)")


@pytest.mark.parametrize(
    ("path", "current"), [(PAGE, "page"), *((f"{CHANGE}?provider=north&action={each}", "true") for each in Action)]
)
def test_page_of_providers_links_to_the_other_pages(gateway: Settings, admin_client: Client, path: str, current: str):
    trail, _, menu = admin_client.get(path).text.partition('class="sticky-sections"')
    assert "/admin/sessions_sticky/session/overview/" in menu
    assert f'<a href="{PAGE}" aria-current="{current}">Providers</a>' in menu
    assert menu.count("aria-current") == 1
    assert (f'<li><a href="{PAGE}">Providers</a></li>' in trail) == (current == "true")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("is_failing", "is_drained", "prominent"),
    [
        (False, False, ["Healthy"]),  # with the border of a healthy one
        (False, True, ["Draining"]),
        (True, False, ["Failing"]),
        (True, True, ["Failing"]),
    ],
)
def test_badge_with_the_border_of_the_level_names_its_reason(
    gateway: Settings, admin_client: Client, *, is_failing: bool, is_drained: bool, prominent: list[str]
):
    if is_failing:
        process.health.failed("north", "model-a", DOWN)
    if is_drained:
        actions.act("north", Action.DRAIN, by="ann")
    section = admin_client.get(PAGE).text.partition('id="provider-1"')[2].partition("</h2>")[0]
    assert re.findall(r'class="sticky-badge">([^<]*)<', section) == prominent
