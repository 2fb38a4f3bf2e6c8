from __future__ import annotations

import os
import time
import warnings
from threading import Event, Thread

import pytest

from sessions_sticky import metrics, stores
from sessions_sticky.connections.cluster.connection_factory import ClusterConnectionFactory
from sessions_sticky.locks import fork_safe_lock
from sessions_sticky.stores import local_cache

LOCKS = {
    "new": fork_safe_lock(),
    "last seen": local_cache._lock,
    "stores": stores._lock,
    "metrics": metrics._registering,
    "cluster": ClusterConnectionFactory._connecting,
}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_is_free_in_a_forked_process_when_a_thread_of_its_parent_held_it(name):
    lock, is_held = LOCKS[name], Event()

    def hold():
        with lock:
            is_held.set()
            time.sleep(0.05)

    thread = Thread(target=hold)
    thread.start()
    is_held.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, for any fork while threads run
        child = os.fork()
    if child == 0:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    assert os.waitpid(child, 0)[1] == 0
    thread.join()
    assert lock.acquire(timeout=5)  # in the parent, too
    lock.release()
