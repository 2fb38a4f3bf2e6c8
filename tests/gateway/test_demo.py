from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth import authenticate, get_user_model

from sentinel_project.gateway.demo import ADMIN, OWNER, ensure_credentials
from sentinel_project.gateway.models import ApiKey

pytestmark = pytest.mark.django_db


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "demo.json"


def test_ensure_credentials_creates_working_ones_when_there_are_none(path: Path) -> None:
    made = ensure_credentials(path)

    assert ApiKey.objects.is_live(made.api_key)
    assert ApiKey.objects.get().owner == OWNER
    admin = authenticate(username=ADMIN, password=made.admin_password)
    assert admin is not None
    assert admin.is_superuser


def test_ensure_credentials_hides_them_from_others_when_it_writes(path: Path) -> None:
    ensure_credentials(path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["demo.json"]


def test_ensure_credentials_returns_the_kept_ones_when_they_work(path: Path) -> None:
    made = ensure_credentials(path)

    assert ensure_credentials(path) == made
    assert ApiKey.objects.count() == get_user_model().objects.count() == 1


def test_ensure_credentials_makes_a_key_when_the_kept_one_is_revoked(path: Path) -> None:
    made = ensure_credentials(path)
    ApiKey.objects.revoke()

    again = ensure_credentials(path)

    assert again.api_key != made.api_key
    assert ApiKey.objects.is_live(again.api_key)
    assert again.admin_password == made.admin_password
    assert ensure_credentials(path) == again


def test_ensure_credentials_makes_both_when_the_database_is_new(path: Path) -> None:
    made = ensure_credentials(path)
    ApiKey.objects.all().delete()
    get_user_model().objects.all().delete()

    again = ensure_credentials(path)

    assert ApiKey.objects.is_live(again.api_key)
    assert authenticate(username=ADMIN, password=again.admin_password)
    assert again.admin_password != made.admin_password


@pytest.mark.parametrize("change", ["password", "is_active", "is_superuser"])
def test_ensure_credentials_keeps_an_admin_that_was_changed(path: Path, change: str) -> None:
    made = ensure_credentials(path)
    admin = get_user_model().objects.get()
    if change == "password":
        admin.set_password("their own")
    else:
        setattr(admin, change, False)
    admin.save()

    again = ensure_credentials(path)

    assert again.admin_password is None
    assert again.api_key == made.api_key
    admin.refresh_from_db()
    assert admin.check_password("their own") is (change == "password")
    assert ensure_credentials(path) == again


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"api_key": 1}', b"\xff"])
def test_ensure_credentials_makes_a_key_when_the_file_is_broken(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    assert ApiKey.objects.is_live(ensure_credentials(path).api_key)


def test_ensure_credentials_hides_them_when_the_file_was_open_to_all(path: Path) -> None:
    path.write_text("{}")
    path.chmod(0o644)

    ensure_credentials(path)

    assert path.stat().st_mode & 0o777 == 0o600
