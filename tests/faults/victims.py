"""Processes that change sessions until they are killed; `python -m tests.faults.victims URL` forks one for each line.

A separate process forks: it has one thread, and has already imported everything.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from random import Random

from django.conf import settings

from sessions_sticky import SessionConflict, SessionManager
from tests.conftest import patient_config

SESSIONS = 40


class Victims:
    """Starts victims and kills them; a context manager."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-m", "tests.faults.victims", url]
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, seed: int) -> int:
        """Start one; return its process id once it has begun to change sessions."""
        assert self._parent.stdin
        assert self._parent.stdout
        print(seed, file=self._parent.stdin, flush=True)
        return int(self._parent.stdout.readline())

    def __enter__(self) -> Victims:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._parent.communicate(timeout=10)


def _change(random: Random) -> None:
    manager = SessionManager()
    manager.all().count()
    print(os.getpid(), flush=True)  # noqa: T201
    while True:
        with suppress(SessionConflict):
            if random.randrange(2):
                _change_one(manager, random)
            else:
                asyncio.run(_achange_some(manager, random))


def _change_one(manager: SessionManager, random: Random) -> None:
    conversation_id, provider, model = f"v{random.randrange(SESSIONS)}", random.choice("pq"), random.choice("mn")
    what, session = random.randrange(7), manager.get(conversation_id)
    if what == 0:
        manager.delete(conversation_id)
    elif what == 1:
        manager.filter(provider=provider).rebind(to_provider=random.choice("pq"), reason="a test")
    elif what == 2:
        manager.all().page(limit=5)
    elif what == 3 and session:
        manager.rebind(session, provider=provider, model=model, reason="a test")
    elif what == 4:
        manager.touch(conversation_id)
    elif what == 5 or session is None:
        manager.create(conversation_id, provider, model, "o", replace=True)
    else:
        manager.resolve(conversation_id, provider=provider, model=model, owner=session.external_id)


async def _achange_some(manager: SessionManager, random: Random) -> None:
    ids = [f"v{random.randrange(SESSIONS)}" for _ in range(8)]
    proposal = {"provider": random.choice("pq"), "model": "m", "owner": "o"}
    calls = [manager.aresolve(each, **proposal) if random.randrange(3) else manager.adelete(each) for each in ids]
    await asyncio.gather(*calls)


def _main(url: str) -> None:
    settings.configure(CACHES={"default": patient_config(url)}, LOGGING_CONFIG=None)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process waits for them
    for line in sys.stdin:
        if os.fork() == 0:
            sys.stdin.close()
            _change(Random(int(line)))


if __name__ == "__main__":
    _main(sys.argv[1])
