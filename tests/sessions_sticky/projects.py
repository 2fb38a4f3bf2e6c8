"""Projects of others: settings, URLs and a program, run in a process of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sessions_sticky
from tests import programs

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(sessions_sticky.__file__).parents[1]
SETTINGS = """
from sessions_sticky import cache_config

SECRET_KEY = "x"
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "theirs.urls"
USE_TZ = True
STATIC_URL = "static/"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "sessions_sticky",
    "theirs",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
"""
START = """
import json
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "theirs.settings"
import django

django.setup()
from django.core.management import call_command

call_command("migrate", verbosity=0)
"""


def run_project(
    folder: Path, program: str, *, settings: str = "", urls: str = "", files: Mapping[str, str] = {}
) -> Any:
    """Run a program in a new project in `folder` and return the JSON that it prints last.

    `settings` and `urls` are added to the project's; `files` are more modules of its app `theirs`.
    """
    app = folder / "theirs"
    app.mkdir()
    contents = {"__init__": "", "settings": SETTINGS + settings, "urls": f"urlpatterns = []\n{urls}", **files}
    for name, text in contents.items():
        (app / f"{name}.py").write_text(text)
    env = {"PYTHONPATH": f"{folder}:{ROOT}", "PATH": "/usr/bin:/bin"}
    ended = programs.run("-c", START + program, cwd=folder, env=env, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])
