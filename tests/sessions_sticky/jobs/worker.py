"""What the processes of test_runner do; a module of its own, for they run it by name.

python -m tests.sessions_sticky.jobs.worker URL LEASE start    begins to delete the sessions of `openai`, prints its key
python -m tests.sessions_sticky.jobs.worker URL LEASE KEY      waits for the key `go`, adopts jobs, prints how many
                                                               threads it began for it; then runs until killed
"""

from __future__ import annotations

import sys
import threading
import time

import django
from django.conf import settings
from django.core.cache import cache

from sessions_sticky.jobs import runner
from sessions_sticky.jobs.job import Plan
from sessions_sticky.jobs.service import Jobs
from sessions_sticky.queries.filters import Filters
from tests.conftest import patient_config


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def main(url: str, lease: str, what: str) -> None:
    settings.configure(CACHES={"default": patient_config(url)})
    django.setup()
    runner.LEASE_SECONDS = float(lease)
    if what == "start":
        say(Jobs().start(Plan(Filters(provider="openai")), actor="alice").key)
    else:
        say("ready")
        while not cache.client.get_client().exists("go"):
            time.sleep(0.001)
        Jobs().watch()
        time.sleep(0.5)
        say(sum(thread.name == f"job {what}" for thread in threading.enumerate()))
    time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
