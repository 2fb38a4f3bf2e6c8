"""Write the data of version 0.1.0 that test_upgrade.py starts from. Run by 0.1.0, in a checkout of it:

REDIS_URL=redis://127.0.0.1:PORT/0 python .../tests/upgrade/write_0_1.py .../tests/upgrade/written_by_0_1.json
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, os.getcwd())
folder = tempfile.mkdtemp()
os.environ |= {
    "DJANGO_SETTINGS_MODULE": "sentinel_project.settings",
    "DATABASE_URL": f"sqlite:///{folder}/db.sqlite3",
    "SENTINEL_DATA_DIR": folder,
    "SECRET_KEY": "only-for-the-tests-" + 40 * "x",
    "ALLOWED_HOSTS": "testserver",
}

import django  # noqa: E402

django.setup()

import redis  # noqa: E402
from django.contrib.auth.models import Permission, User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402

from sentinel_project.gateway.models import ApiKey  # noqa: E402
from sessions_sticky import sessions  # noqa: E402

MODEL = "echo-large"


def write() -> dict[str, Any]:
    """Write sessions, history, an operation, a key and users; return what the test needs to know of them."""
    call_command("migrate", verbosity=0)
    key = ApiKey.objects.issue("ann")
    User.objects.create_superuser("root", password="root-of-0.1.0")
    looker = User.objects.create_user("looker", password="looker-of-0.1.0", is_staff=True)
    view = Permission.objects.get(codename="view_session", content_type__app_label="sessions_sticky")
    looker.user_permissions.add(view)

    bound = {"provider": "echo-two", "model": MODEL, "external_id": "ann"}
    made = [sessions.create(f"conv-{number}", **bound) for number in range(6)]
    sessions.create("ses-1", provider="echo-three", model=MODEL, external_id="ann")
    sessions.create("grüße/🦊", provider="echo-one", model="echo-small", external_id="ben")
    sessions.rebind(made[0], provider="echo-one", model=MODEL, reason="planned by hand")
    sessions.delete("conv-5")
    api = Client()
    api.login(username="root", password="root-of-0.1.0")
    body = {"provider": "echo-three", "model": MODEL, "reason": "by the API"}
    moved = api.post("/api/sessions/conv-1/rebind/", body, content_type="application/json")
    assert moved.status_code == 200, moved.content
    bulk = {"provider": "echo-one", "model": "echo-small", "to_provider": "echo-two", "reason": "maintenance"}
    done = api.post("/api/sessions/rebind/", bulk, content_type="application/json")
    assert done.status_code in (200, 202), done.content
    time.sleep(2)
    kept = [each.session.id for each in sessions.page().sessions]
    return {"key": key, "operation": done.json(), "sessions": sorted(kept)}


def dump(client: redis.Redis) -> list[dict[str, Any]]:
    """Return every key with its type, value and time to live."""
    readers = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": lambda key: sorted(client.smembers(key)),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "stream": client.xrange,
    }
    found = []
    for key in sorted(client.scan_iter(count=1000)):
        kind = client.type(key)
        found.append({"key": key, "type": kind, "ttl_ms": client.pttl(key), "value": readers[kind](key)})
    return found


def main(file: Path) -> None:
    """Write everything to one file."""
    known = write()
    client = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    connection = sqlite3.connect(f"{folder}/db.sqlite3")
    written = {
        "written_at": time.time(),
        **known,
        "redis": dump(client),
        "sqlite": list(connection.iterdump()),
    }
    file.write_text(json.dumps(written, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
