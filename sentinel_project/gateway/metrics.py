"""The gateway's Prometheus metrics; sessions_sticky exports those of resolving.

| metric | labels |
| --- | --- |
| `sentinel_requests_total` (no provider: refused before one was chosen) | `status`, `outcome`, `provider`, `model` |
| `sentinel_spills_total` (answered by another than the bound provider) | `from_provider`, `to_provider`, `reason` |
| `sentinel_upstream_seconds` (histogram: a whole answer, or the first byte of a stream) | `provider`, `stream` |
| `sentinel_upstream_failures_total` | `provider`, `code` |
| `sentinel_upstream_abandoned_total` (given up after they were sent: the provider may charge for them) | `provider` |
| `sentinel_turns_dropped_total` (turns that are missing from the trail, the sums and the token counters) | |
| `sentinel_key_refusals_total` (requests of keys that are paused, or over a limit) | `reason` |
| `sentinel_streams_in_flight` | |
| `sentinel_provider_cooling` (1 while a provider cools down, or one of its models) | `provider` |
| `sentinel_provider_failing_since_seconds` (Unix time of the first failure since an answer; 0: none) | `provider` |
| `sentinel_provider_in_flight` (requests) | `provider` |
| `sentinel_provider_weight` (0: it takes no new conversations) | `provider` |
| `sentinel_provider_reloads_total` (changes of the providers' file) | `result`: `taken` or `refused` |
| `sentinel_log_lines_dropped_total` (lines of the log whose reader, a pipe or a socket, did not keep up) | |
| `sentinel_tasks` (asyncio tasks: a handful, and up to four for each request) | |

Workers on one machine write to files in PROMETHEUS_MULTIPROC_DIR, so any of them answers for all.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
    multiprocess,
    values,
)

from sentinel_project import locks
from sentinel_project.gateway.counts_file import CountsFile, merge_ended
from sentinel_project.metrics_folder import is_alive, process_of

# prometheus-client asks the system for the process's number at each count, which was 6 % of a request.
_process = [os.getpid()]
_File: Any = values.MultiProcessValue(lambda: _process[0])  # type: ignore[no-untyped-call]
_pending: deque[tuple[_Value, float]] = deque()
MAX_PENDING = 10_000


class _Value(_File):  # type: ignore[misc]
    """A value in this process's file, to which `write_counts` adds; a write to the file takes 2 us."""

    def inc(self, amount: float) -> None:
        _pending.append((self, amount))
        if len(_pending) >= MAX_PENDING:
            write_counts()

    def set(self, value: float, timestamp: float | None = None) -> None:
        write_counts()
        super().set(value, timestamp)

    def get(self) -> float:
        write_counts()
        return float(super().get())


def write_counts() -> None:
    """Write what was counted since the last call to this process's file."""
    sums: dict[_Value, float] = defaultdict(float)
    with suppress(IndexError):  # another thread may take some
        while _pending:
            value, amount = _pending.popleft()
            sums[value] += amount
    for value, amount in sums.items():
        _File.inc(value, amount)


def _on_fork() -> None:
    _process[0] = os.getpid()
    _pending.clear()  # the parent writes them


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_on_fork)
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    values.MmapedDict = CountsFile  # type: ignore[attr-defined]
    values.ValueClass = _Value
    atexit.register(write_counts)

UPSTREAM_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Seconds: from a local model's first token to the longest answers."""

requests = Counter("sentinel_requests_total", "Chat requests.", ["status", "outcome", "provider", "model"])
spills = Counter(
    "sentinel_spills_total",
    "Requests answered by another than the bound provider.",
    ["from_provider", "to_provider", "reason"],
)
upstream_seconds = Histogram(
    "sentinel_upstream_seconds",
    "Time to a provider's answer, or to the first byte of a stream.",
    ["provider", "stream"],
    buckets=UPSTREAM_BUCKETS,
)
upstream_failures = Counter("sentinel_upstream_failures_total", "Providers' failures.", ["provider", "code"])
upstream_abandoned = Counter(
    "sentinel_upstream_abandoned_total", "Requests that were given up after they were sent.", ["provider"]
)
turns_dropped = Counter("sentinel_turns_dropped_total", "Turns that were not recorded.")
key_refusals = Counter("sentinel_key_refusals_total", "Requests of keys that are paused or over a limit.", ["reason"])
for reason in ("key_paused", "key_requests_limit", "key_tokens_limit", "key_in_flight_limit"):
    key_refusals.labels(reason)
streams_in_flight = Gauge("sentinel_streams_in_flight", "Streams being answered.", multiprocess_mode="livesum")
provider_cooling = Gauge(
    "sentinel_provider_cooling", "Whether a provider cools down.", ["provider"], multiprocess_mode="livemax"
)
provider_failing_since = Gauge(
    "sentinel_provider_failing_since_seconds",
    "When a provider failed first since its last answer, in Unix seconds; 0: it has not.",
    ["provider"],
    multiprocess_mode="livemax",
)
provider_in_flight = Gauge(
    "sentinel_provider_in_flight", "Requests in flight to a provider.", ["provider"], multiprocess_mode="livesum"
)
provider_weight = Gauge(
    "sentinel_provider_weight", "Weight of a provider.", ["provider"], multiprocess_mode="livemostrecent"
)
provider_reloads = Counter("sentinel_provider_reloads_total", "Changes of the providers' file.", ["result"])
for result in ("taken", "refused"):
    provider_reloads.labels(result)  # 0 until there is one: an alert rule must see the first
log_lines_dropped = Counter("sentinel_log_lines_dropped_total", "Log lines that were not written.")
tasks = Gauge("sentinel_tasks", "Tasks on the event loops.", multiprocess_mode="livesum")

# prometheus-client checks the labels at each look-up, which takes as long as the count.
request_count = lru_cache(maxsize=1024)(requests.labels)
upstream_time = lru_cache(maxsize=1024)(upstream_seconds.labels)

COUNT_SECONDS = 1.0
WRITE_SECONDS = 0.1
"""How late the counts of the other workers may be."""


async def count_tasks_forever() -> None:
    """Count this worker's asyncio tasks until cancelled."""
    while True:
        tasks.set(len(asyncio.all_tasks()))
        await asyncio.sleep(COUNT_SECONDS)


async def write_counts_forever() -> None:
    """Write what was counted until cancelled; `handler` writes the rest."""
    while True:
        await asyncio.sleep(WRITE_SECONDS)
        write_counts()


def count_workers() -> int:
    """Return the number of live workers of this machine, and of processes whose counts had no space on the disk.

    Their parent, and commands, have no requests in flight.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    files = Path(folder).glob("gauge_livesum_*.db") if folder else ()
    alive = [file for file in files if is_alive(process_of(file))]
    return sum(not counts or b"sentinel_provider_in_flight" in counts for counts in map(Path.read_bytes, alive))


def in_flight() -> dict[str, int]:
    """Return the requests in flight to each provider, of all workers of this machine."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        found = provider_in_flight.collect()
    else:
        found = _merged(file for file in _files(folder, "gauge_livesum_*.db") if is_alive(process_of(file)))
    samples = [each for metric in found for each in metric.samples if each.name == "sentinel_provider_in_flight"]
    return {sample.labels["provider"]: int(sample.value) for sample in samples}


def render() -> tuple[bytes, str]:
    """Return the metrics of all workers of this machine, and their content type."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return generate_latest(), CONTENT_TYPE_LATEST
    write_counts()
    registry = CollectorRegistry()
    registry.register(_Counts(folder))
    with _locked(Path(folder)):
        return generate_latest(registry), CONTENT_TYPE_LATEST


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Remove the gauges of ended workers, merge their counts if they are many, and keep the rest as it is.

    On a full or read-only disk all files stay.
    """
    try:
        lock = locks.exclusive(folder / "lock")
    except OSError:
        yield
        return
    with lock:
        with suppress(OSError):
            for pid in {process_of(file) for file in folder.glob("gauge_livesum_*.db")}:
                if not is_alive(pid):
                    multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
            merge_ended(folder, is_alive)
        yield


class _Counts:
    """The counts of all workers of this machine, those that ended included."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        return _merged(_files(self._folder, "*.db"))


def _files(folder: str, pattern: str) -> Iterator[Path]:
    """Return files of counts; not the empty one of a process that was killed as it created it."""
    for file in Path(folder).glob(pattern):
        with suppress(FileNotFoundError):  # another worker has removed it
            if file.stat().st_size:
                yield file


def _merged(files: Iterable[Path]) -> Iterable[Metric]:
    metrics: Iterable[Metric] = multiprocess.MultiProcessCollector.merge(map(str, files))  # type: ignore[no-untyped-call]
    return metrics
