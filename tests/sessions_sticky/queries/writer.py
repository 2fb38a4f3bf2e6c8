"""A process that changes sessions until it is killed, or drains a provider; started by test_reindex and test_bulk."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from random import Random

from django.conf import settings

from tests.conftest import patient_config
from tests.programs import Program


def writer(url: str, *arguments: str) -> Program:
    """Start one."""
    command = ("-m", "tests.sessions_sticky.queries.writer", url, *arguments)
    return Program(*command, env=os.environ, stdout=subprocess.PIPE)


def change(seed: str) -> None:
    """Create, rebind, touch and delete forever; a line of output marks the start."""
    from sessions_sticky import SessionConflict, SessionManager

    manager, random, number = SessionManager(), Random(seed), 0
    while True:
        number += 1
        conversation_id = f"w{random.randrange(40)}"
        provider, model = random.choice("pq"), random.choice("mn")
        what = random.randrange(4)
        session = manager.get(conversation_id)
        if what == 0 or session is None:
            manager.create(conversation_id, provider, model, random.choice("ab"), replace=True)
        elif what == 1:
            manager.delete(conversation_id)
        else:
            with suppress(SessionConflict):
                manager.rebind(session, provider=provider, model=model, reason="a test")
        if number == 50:
            print("begun", flush=True)  # noqa: T201


def drain(provider: str) -> None:
    """Move a provider's sessions away in small batches, saying how far it is."""
    from sessions_sticky import SessionManager
    from sessions_sticky.queries import index_reader

    index_reader.BATCH_SIZE = 5
    manager = SessionManager()
    manager.filter(provider=provider).rebind(
        to_provider="elsewhere",
        reason="drain",
        progress=lambda done, expected: print(done, flush=True),  # noqa: T201
    )


if __name__ == "__main__":
    _, url, what, argument = sys.argv
    settings.configure(CACHES={"default": patient_config(url)})
    {"change": change, "drain": drain}[what](argument)
