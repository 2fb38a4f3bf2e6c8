"""The data folder: who can read what is in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sentinel_project.data_folder import check_data_folder, log_exposed_files
from tests.gateway.live import LiveGateway, environment, manage, prepare
from tests.gateway.workers import Worker

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="no modes of files")


@pytest.fixture
def folder(tmp_path: Path, settings: Settings) -> Path:
    """A data folder that all users may enter, with files of every kind."""
    settings.DATA_DIR = tmp_path / "data"
    settings.DATA_DIR.mkdir()
    for name in ("db.sqlite3", "demo.json", "secret_key"):
        (settings.DATA_DIR / name).touch(0o600)
    (settings.DATA_DIR / "metrics").mkdir(0o700)
    (settings.DATA_DIR / "link").symlink_to("secret_key")
    settings.DATA_DIR.chmod(0o755)
    return settings.DATA_DIR


def test_check_is_silent_when_files_are_private(folder: Path) -> None:
    assert check_data_folder() == []


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o666])
def test_check_names_files_when_others_can_read_or_write_them(folder: Path, mode: int) -> None:
    (folder / "db.sqlite3").chmod(mode)
    (folder / "metrics").chmod(0o755)
    (warning,) = check_data_folder()
    assert warning.id == "sentinel.W001"
    assert warning.msg == (
        f"Other users can read or change files in SENTINEL_DATA_DIR ({folder}): db.sqlite3, metrics."
    )
    assert warning.hint == f"Remove their access: chmod -R o= {folder}"


def test_check_names_three_files_when_there_are_more(folder: Path) -> None:
    for number in range(5):
        (folder / f"a{number}").touch()
        (folder / f"a{number}").chmod(0o644)
    assert check_data_folder()[0].msg.endswith(": a0, a1, a2 and 2 more.")


def test_check_ignores_files_that_are_gone_by_now(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "demo.json").chmod(0o644)
    entries = list(os.scandir(folder))
    monkeypatch.setattr(os, "scandir", lambda _: iter(entries))
    for name in ("db.sqlite3", "secret_key", "link"):
        (folder / name).unlink()
    assert check_data_folder()[0].msg.endswith(": demo.json.")


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o770])
def test_check_is_silent_when_others_cannot_enter_the_folder(folder: Path, mode: int) -> None:
    (folder / "db.sqlite3").chmod(0o644)
    folder.chmod(mode)
    assert check_data_folder() == []


def test_log_has_the_warning_when_a_server_starts(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "db.sqlite3").chmod(0o644)
    log_exposed_files()
    (line,) = caplog.messages
    assert "db.sqlite3" in line
    assert "chmod" in line


def exposed(folder: Path) -> list[str]:
    """Return what others can get at, whatever the folder's own mode."""
    return [
        str(path)
        for path in folder.rglob("*")
        if not path.is_symlink() and not path.is_socket() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]


@pytest.mark.slow
def test_gateway_makes_files_for_its_owner_alone_when_others_may_enter_the_folder(
    tmp_path: Path, valkey_url: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    env = environment(data, REDIS_URL=valkey_url, SECRET_KEY="")
    prepare(env)
    with Worker(data, env) as worker:
        worker.wait()
        worker.log.unlink()  # made by the test
    assert {path.name for path in data.iterdir()} >= {"db.sqlite3", "secret_key", "metrics", "static"}
    assert exposed(data) == []
    assert manage("check", env=env).stderr == ""


@pytest.mark.slow
def test_gateway_warns_at_its_start_when_others_can_read_its_files(tmp_path: Path, valkey_url: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "db.sqlite3").touch()
    data.chmod(0o755)
    (data / "db.sqlite3").chmod(0o644)
    with LiveGateway(data, REDIS_URL=valkey_url) as live:
        assert "Other users can read or change files in SENTINEL_DATA_DIR" in live.log.read_text()
    assert "sentinel.W001" in manage("check", env=live.env).stderr
