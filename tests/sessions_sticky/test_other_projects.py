"""What existing projects do with all their apps must work with this one, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sessions_sticky.projects import run_project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

ROWS = """
from django.contrib.auth.models import User
from django.core import serializers
from django.db import connection
from sessions_sticky.models import Session

User.objects.create_user("ann")
call_command("dumpdata", output="dump.json")
call_command("dumpdata", "sessions_sticky", all=True, output="own.json")
call_command("flush", interactive=False, verbosity=0)
call_command("loaddata", "dump.json", verbosity=0)
call_command("remove_stale_contenttypes", interactive=False, verbosity=0)
print(json.dumps({
    "users": [user.username for user in User.objects.all()],
    "own": json.load(open("own.json")),
    "copied": connection.creation.serialize_db_to_string().count("sessions_sticky.session"),
    "counts": [Session.objects.count(), Session._base_manager.count(), Session._default_manager.all().count()],
    "found": [Session.objects.filter(pk="x").exists(), Session.objects.exclude(pk="x").first(),
              list(Session.objects.order_by("id").iterator()), Session.objects.values_list("id").distinct().count()],
}))
"""


def test_project_can_read_all_models_when_the_app_has_no_table(tmp_path: Path) -> None:
    printed = run_project(tmp_path, ROWS)
    assert printed == {
        "users": ["ann"],
        "own": [],
        "copied": 0,
        "counts": [0, 0, 0],
        "found": [False, None, [], 0],
    }
