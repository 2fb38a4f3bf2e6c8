"""The servers that tests start."""

from __future__ import annotations

import os

from tests import programs
from tests.servers import free_port

CHOOSE = """
import secrets, sys
given, choice = [int(each) for each in sys.argv[1:]], secrets.choice
secrets.choice = lambda ports: given.pop() if given else choice(ports)
from tests.servers import free_port
print(free_port())
"""


def test_free_port_returns_another_one_when_a_process_has_it() -> None:
    given = [str(free_port()) for _ in range(3)]
    done = programs.run("-c", CHOOSE, *given, env=os.environ)
    assert int(done.stdout) not in map(int, given), done.stderr
