"""What recording turns costs: CPU of the worker and of Redis, commands, bytes, throughput and latency.

    python bench/trail.py [ROUNDS]     # needs wrk

Two workers of the gateway, each with a Redis of its own, one with trails and one without, are loaded in turns; the
figures are medians over the rounds. CPU time counts, for the machine may be busy with other things.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.gateway import BODY, LOAD, upstream_served  # noqa: E402
from tests.gateway.workers import Worker, Workers  # noqa: E402
from tests.servers import Server, start_server  # noqa: E402

SECONDS, CONNECTIONS = 3, 16
TICKS = os.sysconf("SC_CLK_TCK")


class Round(NamedTuple):
    """What one request took: microseconds of CPU, milliseconds of the client, and how many fit in a second."""

    worker_us: float
    redis_us: float
    median_ms: float
    slow_ms: float
    rate: float


class Side(NamedTuple):
    """A worker, its Redis, and the load for it."""

    worker: Worker
    store: Server
    script: Path

    def measure(self) -> tuple[Round, Counter[str]]:
        """Load it; return what a request took, and how often each command ran."""
        cpu, redis_cpu, commands = self._cpu(), self._redis_cpu(), self._commands()
        url = f"{self.worker.url}/v1/chat/completions"
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", "-s", str(self.script), url]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert "Non-2xx" not in output, output
        count = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
        median, slow = (_milliseconds(re.search(rf"{share}%\s+(\S+)", output)[1]) for share in (50, 99))  # type: ignore[index]
        worker_us, redis_us = (self._cpu() - cpu) / count * 1e6, (self._redis_cpu() - redis_cpu) / count * 1e6
        per_request = Counter({name: calls / count for name, calls in (self._commands() - commands).items()})
        return Round(worker_us, redis_us, median, slow, count / SECONDS), per_request

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.worker.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def _redis_cpu(self) -> float:
        with self.store.client() as client:
            used = client.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"])

    def _commands(self) -> Counter[str]:
        with self.store.client() as client:
            stats = client.info("commandstats")
        return Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()})

    def bytes_by_kind(self) -> dict[str, tuple[int, float]]:
        """Return how many keys of each kind there are, and their mean size."""
        sizes: dict[str, list[int]] = {}
        with self.store.client() as client:
            for key in client.scan_iter(count=1000):
                kind = key.decode().split(":")[1]
                sizes.setdefault(kind, []).append(client.memory_usage(key, samples=0))
        return {kind: (len(each), statistics.mean(each)) for kind, each in sorted(sizes.items())}


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def main(rounds: int) -> None:
    """Measure in turns and print."""
    with ExitStack() as stack:
        upstream = stack.enter_context(upstream_served())
        sides: dict[str, Side] = {}
        for name, turns in (("with trails", "8"), ("without", "0")):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            providers = folder / "providers.toml"
            names = ("one", "two")
            providers.write_text(
                "".join(
                    f'[[provider]]\nname = "{each}"\nbase_url = "{upstream}"\nmodels = ["gpt-4o"]\n' for each in names
                )
            )
            store = stack.enter_context(start_server())
            variables = {"REDIS_URL": store.url, "SENTINEL_PROVIDERS": str(providers), "SENTINEL_TRAIL_TURNS": turns}
            workers = stack.enter_context(Workers(folder, 1, **variables))
            script = folder / "load.lua"
            script.write_text(LOAD.replace("KEY", workers.key).replace("BODY", BODY))
            sides[name] = Side(workers.each[0], store, script)
            sides[name].measure()  # warm
        found: dict[str, list[Round]] = {name: [] for name in sides}
        commands: dict[str, Counter[str]] = {}
        for _ in range(rounds):
            for name, side in sides.items():
                measured, commands[name] = side.measure()
                found[name].append(measured)
        print(f"medians of {rounds} rounds of {SECONDS} s in turns, {CONNECTIONS} connections, 1,000 conversations")
        for name, each in found.items():
            middle = Round(*(statistics.median(values) for values in zip(*each, strict=True)))
            print(name, {field: round(value, 2) for field, value in middle._asdict().items()})
            print("  commands of a turn:", {key: round(calls, 3) for key, calls in commands[name].most_common(12)})
            print("  keys and mean bytes:", sides[name].bytes_by_kind())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
