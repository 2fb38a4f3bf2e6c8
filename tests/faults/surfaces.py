"""Everything that shows or changes sessions, called once: methods, pages, calls of the admin API, chats, commands."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from django.urls import reverse

from sentinel_project.gateway.providers import health_sync
from sentinel_project.gateway.providers.config import ECHO
from sessions_sticky import Session, SessionManager
from sessions_sticky.management.commands.sessions import Command
from sessions_sticky.queries import doctor
from tests.faults import methods
from tests.faults.poisons import BOUND, OBJECT
from tests.gateway.asgi import ask, chat
from tests.sessions_sticky.admin.pages import BASE, page_of
from tests.sessions_sticky.calls import method_of, sample

if TYPE_CHECKING:
    from django.core.management.base import CommandParser
    from django.test import Client
    from rest_framework.test import APIClient

API = "/api/sessions/"
MOVING_ALL = {"from_provider": "echo-one", "from_model": "", "provider": "echo-two", "model": "", "reason": "poison"}
FILTERS = ({"provider": "echo-one"}, {"owner": "ann"}, BOUND)
API_PATHS = (
    *(API, f"{API}?provider=echo-one&owner=ann", f"{API}stats/", f"{API}operations/"),
    *(f"{API}id/conv-1/", f"{API}history/conv-1/", f"{API}id/conv-2/"),
)
COMMANDS = (["list", "--all"], ["show", "conv-2"], ["stats"], ["tail"], ["doctor"], ["reindex"])
LOOKS = tuple(name for name in methods.EVERY_METHOD if name not in methods.CHANGING)


class Eyes(NamedTuple):
    """Who looks: a browser, a client of the admin API, an event loop; the job and the walk that there are."""

    browser: Client
    api: APIClient
    loop: asyncio.Runner
    job: str
    cursor: str


def look(eyes: Eyes) -> Iterator[tuple[str, object]]:
    """Call all that only looks; yield its name and the error it gave, None when it gave none."""
    for method, mode in product(LOOKS, methods.MODES):
        yield (
            f"{method}, {mode}",
            _error(methods.invoke(SessionManager(), mode, method, bound("conv-1"), eyes.loop.run)),
        )
    for filters, name in product(FILTERS, ("page", "count")):
        yield f"{name} {filters}", _error(_caught(method_of(SessionManager(), name), **filters))
    yield "next page", _error(_caught(SessionManager().all().page, cursor=eyes.cursor, limit=1))
    for path in pages(eyes):
        yield path, _failed(eyes.browser.get(path))
    for path in (*API_PATHS, f"{API}operations/{eyes.job}/"):
        yield path, _failed(eyes.api.get(path))
    for path in ("/v1/models", f"/v1/responses/{OBJECT}", "/healthz", "/metrics"):
        yield path, _failed(eyes.loop.run(ask(method="GET", path=path)))
    shared = _caught(health_sync.read, ECHO, time.monotonic)
    yield "shared health", None if isinstance(shared, dict) and "echo-two" in shared else shared
    yield "doctor", _error(_caught(doctor.examine))
    for command, form in product(COMMANDS, ([], ["--json"])):
        yield f"manage.py sessions {command[0]} {form}", _error(_caught(run, *command, *form))


def pages(eyes: Eyes) -> list[str]:
    """Return the paths of the admin's pages."""
    named = [
        reverse(f"admin:sessions_sticky_session_{name}") for name in ("changelist", "search", "overview", "move_all")
    ]
    details = [page_of(each, name) for each in ("conv-1", "conv-2") for name in ("change", "history")]
    return [*named, f"{BASE}?provider=echo-one", *details, f"{BASE}operations/{eyes.job}/", "/admin/all/"]


def change(eyes: Eyes) -> Iterator[tuple[str, object]]:
    """Call all that changes sessions, the poisoned and a healthy one."""
    for conversation_id in ("conv-1", "conv-2"):
        answer = eyes.loop.run(ask(chat("echo-small", conversation_id=conversation_id)))
        yield f"chat {conversation_id}", None if answer.status == 200 else answer.body
    request = {"model": "echo-small", "input": "hello", "previous_response_id": OBJECT}
    answer = eyes.loop.run(ask(request, path="/v1/responses"))
    yield "response that continues another", None if answer.status == 400 else answer.body
    for mode in methods.MODES:
        for method in ("touch", "resolve", "create", "record_turn"):
            yield (
                f"{method}, {mode}",
                _error(methods.invoke(SessionManager(), mode, method, bound("conv-3"), eyes.loop.run)),
            )
        session = SessionManager().create("conv-3", **BOUND, replace=True)
        for method in ("rebind", "delete"):
            yield f"{method}, {mode}", _error(methods.invoke(SessionManager(), mode, method, session, eyes.loop.run))
    move = {"provider": "echo-two", "model": "echo-small", "reason": "poison"}
    for name, body in {"touch": None, "rebind": move}.items():
        path = f"{API}{name}/conv-2/"
        yield path, _failed(eyes.api.post(path, json.dumps(body) if body else "", content_type="application/json"))
    yield "move all", _failed(eyes.browser.get(f"{BASE}move-all/", MOVING_ALL))
    for name in ("stop", "resume"):
        path = f"{API}operations/{eyes.job}/{name}/"
        yield path, _failed(eyes.api.post(path))


def bound(conversation_id: str) -> Session:
    """Return a session as it was made."""
    return sample(conversation_id, **BOUND)


@cache
def parser() -> CommandParser:
    """Return the parser of the command; `call_command` makes one for each call, which takes longer than most calls."""
    return Command().create_parser("manage.py", "sessions")


def run(*command: str) -> str:
    """Return what a command prints."""
    out = io.StringIO()
    Command().execute(**vars(parser().parse_args(command)), stdout=out, stderr=out)
    return out.getvalue()


def session_ids(manager: SessionManager) -> set[str]:
    """Return the ids of the sessions that a page shows."""
    return {entry.session.id for entry in manager.all().page(limit=1_000).entries}


def _caught(call: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except (Exception, SystemExit) as exc:
        return exc


def _error(answer: Any) -> object:
    return answer if isinstance(answer, BaseException) else None


def _failed(response: Any) -> object:
    status = getattr(response, "status_code", None) or response.status
    return f"{status}" if status >= 500 or status == 429 else None
