from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import runpy
import shutil
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from django.core.management import call_command

from sessions_sticky import SessionManager, SessionOwnerMismatch, Usage
from sessions_sticky.connections.url import read_url
from sessions_sticky.identity.apis import APIS
from tests.docs.blocks import DOCS, Block, blocks
from tests.docs.reader import Reader
from tests.servers import Server, start_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    import redis

OWNERS_KEY = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
PIN = json.dumps({"model_id": "azure-eu-1"})
LITELLM = "deployment_affinity:v1:session"
PINS = {
    f"{LITELLM}:gpt-4o:{OWNERS_KEY}:trip:1": PIN,
    f"cache:{LITELLM}:bedrock:claude:unscoped:trip-2": json.dumps({"model_id": "openai-1"}),
    f"{LITELLM}:gpt-4o:trip-3": PIN,  # of an earlier version
    f"{LITELLM}:gpt-4o:{OWNERS_KEY}:trip-4": json.dumps({"model_id": "gone"}),
    f"{LITELLM}:gpt-4o:{'f' * 64}:trip-5": PIN,
    f"deployment_affinity:v1:gpt-4o:{OWNERS_KEY}": PIN,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server() as server:
        yield server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """The project of the tutorial, not yet started."""
    folder = tmp_path_factory.mktemp("project")
    with Reader(folder, server.url) as reader:
        reader.follow([block for block in blocks("tutorial.md") if is_of_the_project(block)])
    return folder


@pytest.fixture
def reader(tmp_path: Path, project: Path, server: Server) -> Iterator[Reader]:
    """A reader with the project of the tutorial, not started yet."""
    with server.client() as client:
        client.flushdb()
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    with Reader(tmp_path, server.url) as reader:
        yield reader


def is_of_the_project(block: Block) -> bool:
    return block.text.startswith("$ pip") if block.language == "console" else block.how != "change this line"


def named(page: str) -> list[Block]:
    """The blocks of a page that say where they belong, and what is typed."""
    return [block for block in blocks(page) if block.path or block.language == "console"]


@pytest.fixture
def run_file(tmp_path: Path) -> Callable[[str, str], dict[str, Any]]:
    """Run the file that a page gives, and return its names."""

    def run(page: str, path: str) -> dict[str, Any]:
        (block,) = [block for block in blocks(page) if block.path == path]
        block.apply(tmp_path)
        return runpy.run_path(str(tmp_path / path))

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["how-to/authentication.md", "how-to/testing.md", "how-to/monitoring.md"], ids=lambda page: page[7:-3]
)
def test_page_prints_what_it_shows_when_followed(page: str, reader: Reader) -> None:
    reader.follow(named(page))
    for command, expected, printed in reader.heard:
        if expected or command.startswith("curl"):
            assert printed == expected, command


@pytest.mark.slow
def test_admin_api_lets_operators_do_what_the_page_gives_them_and_no_more(reader: Reader) -> None:
    reader.follow(named("how-to/authentication.md"))
    url, *grace = "localhost:8000/api/sessions/", "-H", "Authorization: Bearer secret-of-grace"
    assert '"count":0' in reader.curl(url, *grace)
    assert '"status":403' in reader.curl(url, *grace, "-d", "{}")
    assert '"status":404' in reader.curl(f"{url}touch/trip-3/", *grace, "-d", "")
    assert '"status":415' in reader.curl(f"{url}delete/", *grace, "-d", "{}")  # admitted, but curl sends a form
    assert '"status":401' in reader.curl(url)


@pytest.mark.slow
def test_own_admin_site_has_the_pages_when_the_page_is_followed(reader: Reader) -> None:
    reader.follow([block for block in named("how-to/authentication.md") if block.language != "console"])
    reader.follow([Block("console", "", "", "$ uvicorn mysite.asgi:application\n")])
    assert 'action="/support/login/' in reader.curl("localhost:8000/support/sessions_sticky/session/")


@pytest.mark.slow
def test_metrics_count_chats_when_the_page_is_followed(reader: Reader, tmp_path: Path) -> None:
    tmp_path.joinpath("numbers").mkdir()
    reader.environment["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path / "numbers")
    chat = '{"conversation_id": "trip-3", "model": "gpt-4o", "message": "Hello"}'
    reader.follow(named("how-to/monitoring.md"))
    reader.follow([Block("console", "", "", "$ uvicorn mysite.asgi:application\n")])
    reader.curl("localhost:8000/chat/", "-H", "X-User: ada", "-d", chat)
    exported = reader.curl("localhost:8000/metrics/")
    assert 'sessions_sticky_resolutions_total{outcome="created",provider="azure"} 1.0' in exported


@pytest.mark.slow
def test_script_moves_live_pins_of_litellm_when_run(reader: Reader, server: Server) -> None:
    reader.environment["LITELLM_REDIS_URL"] = server.url
    with server.client() as client:
        for key, pin in PINS.items():
            client.set(key, pin, ex=3600)
        reader.follow(named("how-to/litellm.md"))
        _, run = reader.heard
        moved = {key: json.loads(client.get(key)) for key in client.scan_iter("sentinel:session:*")}
        reader.follow(named("how-to/litellm.md"))
    assert run[1] == run[2] == reader.heard[3][2]
    assert {key: (found["provider"], found["model"], found["external_id"]) for key, found in moved.items()} == {
        b"sentinel:session:trip:1": ("azure", "gpt-4o", "ada"),
        b"sentinel:session:trip-2": ("openai", "gpt-4o", ""),
        b"sentinel:session:trip-3": ("azure", "gpt-4o", ""),
    }


@pytest.mark.slow
def test_page_names_the_hash_that_litellm_makes_of_a_key() -> None:
    assert hashlib.sha256(b"1").hexdigest() == OWNERS_KEY
    assert OWNERS_KEY in next(block.text for block in blocks("how-to/litellm.md") if block.path)


def test_other_programs_and_the_manager_share_sessions_when_they_follow_the_page(
    run_file: Callable[..., Any], session_cache: redis.Redis
) -> None:
    theirs = run_file("interchange.md", "resolve.py")["resolve"]
    theirs.__globals__["store"] = session_cache
    manager = SessionManager()
    bound = theirs("trip-é", "azure", "gpt-4o", "ada")
    assert session_cache.get("sentinel:session:trip-é") == manager.get("trip-é").to_json()
    assert 0 < session_cache.ttl("sentinel:session:trip-é") <= 86_400
    assert manager.resolve("trip-é", provider="b", model="b", owner="ada").session.provider == "azure"
    assert theirs("trip-é", "b", "b", "ada") == bound
    with pytest.raises(PermissionError):
        theirs("trip-é", "b", "b", "eve")
    with pytest.raises(SessionOwnerMismatch):
        manager.resolve("trip-é", provider="b", model="b", owner="eve")


@pytest.fixture
def identity_page(run_file: Callable[..., Any], settings: Any) -> dict[str, Any]:
    """The names of the page on conversation ids, in a project with the settings that it adds."""
    names: dict[str, Any] = {"SESSIONS_STICKY": {}}
    for block in blocks("how-to/conversation-id.md"):
        if block.path == "mysite/settings.py":
            exec(block.text, names)
    settings.SESSIONS_STICKY = settings.SESSIONS_STICKY | {"IDENTITY": names["SESSIONS_STICKY"]["IDENTITY"]}
    return run_file("how-to/conversation-id.md", "mysite/conversation.py")


TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "?"}]


@pytest.mark.parametrize(
    ("headers", "fields", "source", "client_id"),
    [
        ({"X-My-Chat-Id": "a", "X-Session-Id": "b"}, {}, "header.x-my-chat-id", "a"),
        ({"X-Session-Id": "a"}, {"metadata": {"session_id": "b"}}, "header.x-session-id", "a"),
        ({}, {"metadata": {"session_id": "b"}}, "body.metadata.session_id", "b"),
        ({"X-Session-Id": "a"}, {"conversation_id": "c"}, "body.conversation_id", "c"),
        ({}, {"messages": TURNS}, "content", None),
        ({}, {"metadata": "text"}, "none", None),
    ],
)
def test_id_of_the_page_is_that_of_the_command(
    headers: dict[str, str],
    fields: dict[str, Any],
    source: str,
    client_id: str | None,
    identity_page: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    body = {"model": "gpt-5", **fields}
    found = identity_page["conversation_of"](headers, body, "ada")
    assert (found.source, found.client_id) == (source, client_id)
    (tmp_path / "request.json").write_text(json.dumps({"headers": headers, "body": body}))
    call_command("sessions", "identify", str(tmp_path / "request.json"), owner="ada", json=True)
    assert json.loads(capsys.readouterr().out)["session_id"] == found.session_id


@pytest.mark.parametrize(
    "options", [{}, {"key": "text"}, {"key": b"bytes"}, {"apis": APIS[:1]}], ids=["none", "text", "bytes", "apis"]
)
def test_id_of_the_page_is_that_of_the_command_with_every_setting(
    options: dict[str, Any], identity_page: dict[str, Any], settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.SESSIONS_STICKY = settings.SESSIONS_STICKY | {"IDENTITY": options}
    found = identity_page["conversation_of"]({"X-Session-Id": "a"}, {"model": "gpt-5"}, "ada")
    request = io.TextIOWrapper(io.BytesIO(b'{"headers": {"X-Session-Id": "a"}, "body": {"model": "gpt-5"}}'))
    with patch("sys.stdin", request):
        call_command("sessions", "identify", owner="ada", json=True)
    assert json.loads(capsys.readouterr().out)["session_id"] == found.session_id


def test_session_id_of_the_page_is_a_named_id_or_none_without_one(identity_page: dict[str, Any]) -> None:
    find = identity_page["conversation_of"]
    assert find({}, {"model": "gpt-5", "conversation_id": "c"}, "ada").session_id == "c"
    assert find({}, {"model": "gpt-5", "metadata": "text"}, "ada").session_id is None


async def test_route_of_the_page_is_kept_by_conversations_and_not_by_first_requests(
    identity_page: dict[str, Any], session_cache: redis.Redis
) -> None:
    route = identity_page["route"]
    SessionManager().create("named", "mistral", "gpt-4o", "ada")
    assert await route({}, {"model": "gpt-5", "conversation_id": "named"}, "ada") == ("mistral", "gpt-4o")
    chosen, model = await route({"X-Session-Id": "a"}, {"model": "gpt-5"}, "ada")
    (session,) = [entry.session for entry in SessionManager().all() if entry.session.id != "named"]
    assert (chosen, model) == (session.provider, session.model)
    await route({}, {"model": "gpt-5", "messages": TURNS[:1]}, "ada")
    await route({}, {"model": "gpt-5"}, "ada")
    assert SessionManager().all().count() == 2


def test_scoped_ids_differ_when_tenants_imitate_each_other(run_file: Callable[..., Any]) -> None:
    scoped = run_file("how-to/conversation-id.md", "mysite/scope.py")["session_id_of"]
    assert len({scoped("a", "b:c"), scoped("a:b", "c"), scoped("a", "c"), scoped("b", "c")}) == 4
    assert len(scoped("a", "x" * 256)) <= 256


class APIConnectionError(Exception):
    """As openai raises for refused connections and timeouts."""


class APIStatusError(Exception):
    """As openai raises for answers of 400 and more."""

    def __init__(self, status_code: int) -> None:
        super().__init__(status_code)
        self.status_code = status_code


@pytest.fixture
def failover(run_file: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the page's file, and `failing`: what each provider raises instead of an answer."""
    failing: dict[str, Exception] = {}

    async def ask(provider: str, model: str, message: str) -> str:
        if provider in failing:
            raise failing[provider]
        return provider

    openai = SimpleNamespace(APIConnectionError=APIConnectionError, APIStatusError=APIStatusError)
    monkeypatch.setitem(sys.modules, "openai", openai)
    monkeypatch.setitem(sys.modules, "mysite", SimpleNamespace(__path__=[]))
    clients = {"azure": None, "openai": None}
    monkeypatch.setitem(sys.modules, "mysite.providers", SimpleNamespace(CLIENTS=clients, ask=ask))
    return {**run_file("how-to/calling-providers.md", "mysite/failover.py"), "failing": failing}


@pytest.mark.parametrize("error", [APIConnectionError(), *map(APIStatusError, (401, 403, 429, 500))], ids=repr)
@pytest.mark.parametrize("ranking", [["azure", "openai"], ["openai", "azure"], ["openai"]], ids=" ".join)
async def test_page_spills_over_and_keeps_the_binding_when_a_provider_fails(
    error: Exception, ranking: list[str], failover: dict[str, Any], session_cache: redis.Redis
) -> None:
    session = await SessionManager().acreate("trip-1", "azure", "gpt-4o", "ada")
    failover["failing"]["azure"] = error
    assert await failover["ask_in_turn"](session, ranking, "Hi") == "openai"
    assert await SessionManager().aget("trip-1") == session


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_page_asks_no_other_provider_when_the_request_is_refused(
    status: int, failover: dict[str, Any], session_cache: redis.Redis
) -> None:
    session = await SessionManager().acreate("trip-1", "azure", "gpt-4o", "ada")
    failover["failing"]["azure"] = APIStatusError(status)
    with pytest.raises(APIStatusError):
        await failover["ask_in_turn"](session, ["azure", "openai"], "Hi")


@pytest.mark.parametrize("ranking", [["azure", "openai"], ["azure"], []], ids=["two", "one", "none"])
async def test_page_raises_the_last_error_when_no_provider_answers(
    ranking: list[str], failover: dict[str, Any], session_cache: redis.Redis
) -> None:
    session = await SessionManager().acreate("trip-1", "azure", "gpt-4o", "ada")
    failover["failing"] |= {"azure": APIConnectionError(), "openai": APIStatusError(500)}
    with pytest.raises(APIStatusError if "openai" in ranking else APIConnectionError):
        await failover["ask_in_turn"](session, ranking, "Hi")


async def test_page_rebinds_when_the_provider_was_removed(failover: dict[str, Any], session_cache: redis.Redis) -> None:
    session = await SessionManager().acreate("trip-1", "mistral", "gpt-4o", "ada")
    assert await failover["ask_in_turn"](session, ["openai", "azure"], "Hi") == "openai"
    assert (await SessionManager().aget("trip-1")).provider == "openai"
    assert await failover["ask_in_turn"](session, ["azure", "openai"], "Hi") == "openai"  # rebound by another process


class Completions:
    """The `chat.completions` of a client of openai; answers every message with the words."""

    def __init__(self, *words: str, details: Any = None) -> None:
        self.words, self.details = words, details
        self.chat = SimpleNamespace(completions=self)

    async def create(self, *, model: str, messages: list[Any], stream: bool = False, **_: Any) -> Any:
        """Return an answer, or the chunks of one with its usage in the last."""
        if stream:
            return self._chunks()
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=" ".join(self.words)))])

    async def _chunks(self) -> AsyncIterator[Any]:
        for word in self.words:
            yield SimpleNamespace(choices=[SimpleNamespace(delta=SimpleNamespace(content=word))], usage=None)
        usage = SimpleNamespace(prompt_tokens=2_000, prompt_tokens_details=self.details, completion_tokens=2)
        yield SimpleNamespace(choices=[], usage=usage)


@pytest.mark.parametrize(
    ("details", "read"),
    [(SimpleNamespace(cached_tokens=1_024), 1_024), (SimpleNamespace(cached_tokens=None), 0), (None, 0)],
    ids=["cached", "without a number", "without details"],
)
async def test_calls_of_the_page_answer_and_record_the_turn(
    details: Any, read: int, run_file: Callable[..., Any], session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai = SimpleNamespace(AsyncOpenAI=lambda **_: Completions("Hello", "you", details=details))
    monkeypatch.setitem(sys.modules, "openai", openai)
    providers = run_file("how-to/calling-providers.md", "mysite/providers.py")
    assert await providers["ask"]("azure", "gpt-4o", "Hi") == "Hello you"
    monkeypatch.setitem(sys.modules, "mysite", SimpleNamespace(__path__=[]))
    monkeypatch.setitem(sys.modules, "mysite.providers", SimpleNamespace(CLIENTS=providers["CLIENTS"]))
    stream = run_file("how-to/calling-providers.md", "mysite/stream.py")["stream"]
    session = await SessionManager().acreate("trip-1", "azure", "gpt-4o", "ada")
    assert [text async for text in stream(session, "created", [])] == ["Hello", "you"]
    trail = SessionManager().trail("trip-1")
    assert trail is not None
    (turn,) = trail.turns
    assert (turn.provider, turn.usage) == ("azure", Usage(input=2_000, read=read, output=2))


def test_environment_of_three_machines_has_settings_of_the_gateway() -> None:
    (block,) = [each for each in blocks("how-to/sentinel-and-cluster.md") if each.path == "/etc/sentinel/environment"]
    variables = dict(line.split("=", 1) for line in block.text.splitlines())
    documented = (DOCS / "reference" / "gateway-settings.md").read_text()
    assert [name for name in variables if f"| `{name}` |" not in documented] == []
    servers = read_url(variables["REDIS_URL"])
    assert (servers.service, servers.userinfo, len(servers.addresses)) == ("mymaster", ":long-password@", 3)
    redis, sentinel = (block.text for block in blocks("how-to/sentinel-and-cluster.md") if block.language == "ini")
    assert "requirepass long-password\n" in redis
    assert "sentinel auth-pass mymaster long-password\n" in sentinel


PAGES = [str(path.relative_to(DOCS)) for path in sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_page_exports_the_variables_that_its_programs_cannot_do_without(page: str) -> None:
    typed = "".join(block.text for block in blocks(page) if block.language == "console")
    programs = "".join(block.text for block in blocks(page) if block.language == "python")
    assert set(re.findall(r'environ\["(\w+)"\]', programs)) <= set(re.findall(r"export (\w+)=", typed))


@pytest.mark.parametrize("page", PAGES)
def test_python_of_the_page_compiles_and_imports_what_there_is(page: str) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            exec("\n".join(re.findall(r"^from sessions_sticky.*", block.text, re.MULTILINE)), {})
