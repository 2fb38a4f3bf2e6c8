"""What a worker frees, it uses again."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.programs import ROOT

REQUESTS = 50
PROGRAM = """
import gc, json, resource, sys
from sentinel_project import memory

def requests(body_bytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({requests}):
        bodies = [bytes(body_bytes) for _ in range(32)]
        del bodies
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "tuned":
    memory.tune()
requests(110_000)
print(json.dumps([requests(110_000), gc.get_threshold()[0], gc.get_freeze_count() > 0]))
"""


def run(mode: str, **variables: str) -> tuple[int, int, bool]:
    """Return the page faults of requests with bodies of 110 KB, and what is set for garbage collection."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(requests=REQUESTS), mode],
        check=True,
        capture_output=True,
        cwd=ROOT,
        env={**{name: value for name, value in os.environ.items() if "MALLOC" not in name}, **variables},
        text=True,
    )
    faults, threshold, is_frozen = json.loads(done.stdout)
    return faults, threshold, is_frozen


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is tuned")
def test_memory_of_a_request_is_used_by_the_next():
    faults, _, _ = run("plain")
    tuned, threshold, is_frozen = run("tuned")
    assert faults > REQUESTS * 100  # of 27 pages for each of 32 bodies
    assert tuned < REQUESTS
    assert (threshold, is_frozen) == (10_000, True)
    chosen, _, _ = run("tuned", MALLOC_TRIM_THRESHOLD_="0")  # by an operator
    assert chosen > REQUESTS * 100
