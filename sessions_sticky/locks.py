"""Locks that survive a fork."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from threading import RLock


def fork_safe_lock() -> AbstractContextManager[bool]:
    """Return a reentrant lock that is free in a forked process: a fork waits until no other thread holds it.

    A thread that held it would be missing in the forked process, which would wait forever. For locks that live as long
    as the process. A fork acquires the latest of them first: a thread that holds one may only acquire earlier ones.
    """
    lock = RLock()
    with suppress(AttributeError):  # Windows has no fork
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
