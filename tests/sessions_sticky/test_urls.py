from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.test import override_settings
from django.urls import include, path, resolve, reverse

import sessions_sticky

ROOT = Path(sessions_sticky.__file__).parents[1]

urlpatterns = [path("mine/", include("sessions_sticky.urls"))]


@override_settings(ROOT_URLCONF=__name__)
def test_urls_serve_the_api_under_the_prefix_that_includes_them():
    assert resolve("/mine/touch/conv/1/").view_name == "sessions_sticky:session_touch"
    assert resolve("/mine/").view_name == "sessions_sticky:sessions"


@override_settings(ROOT_URLCONF=__name__)
@pytest.mark.parametrize(
    ("name", "kwargs", "expected"),
    [
        ("sessions", {}, ""),
        ("stats", {}, "stats/"),
        ("delete_all", {}, "delete/"),
        ("rebind_all", {}, "rebind/"),
        ("operations", {}, "operations/"),
        ("operation", {"operation_key": "ab" * 16}, f"operations/{'ab' * 16}/"),
        ("operation_stop", {"operation_key": "ab" * 16}, f"operations/{'ab' * 16}/stop/"),
        ("operation_resume", {"operation_key": "ab" * 16}, f"operations/{'ab' * 16}/resume/"),
        ("session", {"conversation_id": "conv 1/a"}, "id/conv%201/a/"),
        ("session_history", {"conversation_id": "conv-1"}, "history/conv-1/"),
        ("session_touch", {"conversation_id": "conv-1"}, "touch/conv-1/"),
        ("session_rebind", {"conversation_id": "conv-1"}, "rebind/conv-1/"),
    ],
)
def test_every_route_has_a_name(name, kwargs, expected):
    assert reverse(f"sessions_sticky:{name}", kwargs=kwargs) == f"/mine/{expected}"


SETUP = (
    "import django; from django.conf import settings; settings.configure(INSTALLED_APPS=['sessions_sticky',"
    " 'django.contrib.auth', 'django.contrib.contenttypes']); django.setup()"
)
MISSING = (
    "django.core.exceptions.ImproperlyConfigured: sessions_sticky.urls needs Django REST framework and drf-spectacular:"
    " pip install 'sessions_sticky[drf]'"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("rest_framework", MISSING),
        ("drf_spectacular", MISSING),
        ("msgspec", "ModuleNotFoundError: import of msgspec halted; None in sys.modules"),
    ],
)
def test_urls_report_a_missing_package(missing, message):
    code = f"{SETUP}; import sys; sys.modules[{missing!r}] = None; import sessions_sticky.urls"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1] == message
