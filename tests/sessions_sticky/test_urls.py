from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.test import override_settings
from django.urls import include, path, resolve

import sessions_sticky

ROOT = Path(sessions_sticky.__file__).parents[1]

urlpatterns = [path("mine/", include("sessions_sticky.urls"))]


@override_settings(ROOT_URLCONF=__name__)
def test_urls_serve_the_api_under_the_prefix_that_includes_them():
    assert resolve("/mine/conv/1/touch/").view_name == "sessions_sticky:sessions_sticky.api.views.TouchView"
    assert resolve("/mine/").view_name == "sessions_sticky:sessions"


MISSING = (
    "django.core.exceptions.ImproperlyConfigured: sessions_sticky.urls needs Django REST framework and drf-spectacular:"
    " pip install 'sessions_sticky[drf]'"
)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("rest_framework", MISSING),
        ("drf_spectacular", MISSING),
        ("msgspec", "ModuleNotFoundError: import of msgspec halted; None in sys.modules"),
    ],
)
def test_urls_report_a_missing_package(missing, message):
    code = f"import sys; sys.modules[{missing!r}] = None; import sessions_sticky.urls"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1] == message
