from __future__ import annotations

import ast
import hashlib
import json
import re
import runpy
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import SessionManager, SessionOwnerMismatch
from tests.docs.blocks import DOCS, Block, blocks
from tests.docs.reader import Reader
from tests.servers import Server, start_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
    theirs = run_file("how-to/without-django.md", "resolve.py")["resolve"]
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


def test_id_is_found_where_clients_put_it(run_file: Callable[..., Any]) -> None:
    find = run_file("how-to/conversation-id.md", "mysite/conversation.py")["conversation_of"]
    body = {"model": "gpt-5", "metadata": {"session_id": "b"}}
    assert find({"X-Session-Id": "a"}, body, "ada").client_id == "a"
    assert find({}, body, "ada").client_id == "b"
    assert find({}, body | {"conversation_id": "c"}, "ada").session_id == "c"
    assert find({}, {"model": "gpt-5", "metadata": "text"}, "ada").session_id is None


def test_scoped_ids_differ_when_tenants_imitate_each_other(run_file: Callable[..., Any]) -> None:
    scoped = run_file("how-to/conversation-id.md", "mysite/scope.py")["scoped"]
    assert len({scoped("a", "b:c"), scoped("a:b", "c"), scoped("a", "c"), scoped("b", "c")}) == 4
    assert len(scoped("a", "x" * 256)) <= 256


async def test_failover_spills_over_or_rebinds_as_the_page_says(
    run_file: Callable[..., Any], session_cache: redis.Redis
) -> None:
    answer = run_file("explanation/what-happens-when.md", "mysite/failover.py")["answer"]
    manager = SessionManager()
    session = await manager.acreate("trip-1", "azure", "gpt-4o", "ada")
    assert await answer(session, ["openai"], refusing("azure", TimeoutError)) == "openai"
    assert await manager.aget("trip-1") == session
    await manager.arebind(session, provider="mistral", model="gpt-4o", reason="concurrent")
    assert await answer(session, ["openai"], refusing("azure", PermissionError)) == "mistral"
    now = await manager.aget("trip-1")
    assert await answer(now, ["openai"], refusing("mistral", PermissionError)) == "openai"
    assert (await manager.aget("trip-1")).provider == "openai"


def refusing(provider: str, error: type[OSError]) -> Callable[[str, str], Any]:
    """A call to providers that fails for one of them, and otherwise returns the one that was asked."""

    async def ask(asked: str, model: str) -> str:
        if asked == provider:
            raise error
        return asked

    return ask


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
