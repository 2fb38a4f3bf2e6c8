"""The programs that tests start."""

from __future__ import annotations

import os

from tests.programs import Program


def test_send_signal_raises_nothing_when_the_program_has_just_ended() -> None:
    for _ in range(5):  # without the care for it, about every second one fails
        with Program("-c", "import time; time.sleep(0.03)", env=os.environ) as program:
            while program.poll() is None:  # also between its end and the moment when its exit code is known
                program.send_signal(0)
            assert program.returncode == 0
