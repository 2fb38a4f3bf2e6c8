"""Counts continue when they cannot be stored."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from sentinel_project.gateway import metrics
from sentinel_project.gateway.counts_file import INITIAL_BYTES, MAX_ENDED, CountsFile, merge_ended
from tests.programs import ROOT

NO_PROCESS = 2**22 + 1
"""More than Linux numbers processes."""
KEYS = [f"key {number} {'x' * (number % 50)}" for number in range(3_000)]
"""More than three files of the initial size can hold."""

COUNT_ON_FULL_DISK = """
import json, os, sys
from pathlib import Path
folder, fills_first = Path(sys.argv[1]), sys.argv[2] == "before"
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)

def fill():
    with open(folder / "rest", "wb", buffering=0) as rest:
        try:
            while rest.write(bytes(4096)):
                pass
        except OSError:
            pass

if fills_first:
    fill()
from sentinel_project.gateway import metrics
metrics.provider_reloads.labels("taken").inc()
metrics.write_counts()
fill()
for number in range(3_000):
    metrics.upstream_failures.labels(f"provider-{number}", "timeout").inc(number)
left = [metrics.upstream_failures.labels(f"provider-{number}", "timeout")._value.get() for number in range(3_000)]
samples = [line for line in metrics.render()[0].decode().splitlines() if line.startswith("sentinel_provider_reloads")]
print(json.dumps({"is_counted": left == list(range(3_000)), "samples": samples}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk in a namespace")
@pytest.mark.parametrize(
    ("filled", "samples"),
    [
        ("before", []),
        ("after", ['{result="refused"} 0.0', '{result="taken"} 1.0']),
    ],
)
def test_worker_survives_and_counts_when_the_disk_is_full(filled: str, samples: list[str], tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=1m,mode=700 tmpfs "$0" && exec "$@"'
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(tmp_path)]
    count = [sys.executable, "-c", COUNT_ON_FULL_DISK, str(tmp_path), filled]
    done = subprocess.run([*namespace, *count], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr)  # -7 is SIGBUS
    answer = json.loads(done.stdout)
    assert answer["is_counted"]
    assert len(answer["samples"]) == len(samples)
    assert all(expected in "\n".join(answer["samples"]) for expected in samples)
    assert "No space left on device" in done.stderr
    assert "/metrics lacks new counts of process" in done.stderr


def counted(folder: Path) -> dict[tuple[str, str], float]:
    """Return the samples of all files of counts."""
    found = MultiProcessCollector.merge(map(str, folder.glob("*.db")))
    return {(each.name, str(each.labels)): each.value for metric in found for each in metric.samples}


def write_counts_of(folder: Path, processes: Iterable[int]) -> None:
    for kind, name in (("counter", "made_up"), ("histogram", "taken")):
        for process in processes:
            counts = CountsFile(str(folder / f"{kind}_{process}.db"))
            counts.write_value(mmap_key(name, f"{name}_total", ["of"], ["all"], "Made up."), 1.0, 0.0)
            counts.write_value(mmap_key(name, f"{name}_total", ["of"], [str(process % 7)], "Made up."), 0.5, 0.0)
            counts.close()


def test_counts_of_ended_processes_are_merged_when_they_are_many(tmp_path: Path) -> None:
    alive, ended = range(1, 4), range(4, MAX_ENDED + 5)
    write_counts_of(tmp_path, [*alive, *ended])
    (tmp_path / "counter_9999.db").touch()  # killed as it created its file
    before = counted(Path(shutil.copytree(tmp_path, tmp_path / "before", ignore=lambda *_: ["counter_9999.db"])))
    merge_ended(tmp_path, lambda pid: pid in alive)
    assert len(list(tmp_path.glob("counter_*"))) == len(list(tmp_path.glob("histogram_*"))) == len(alive) + 1
    assert counted(tmp_path) == before
    assert sum(before.values()) > MAX_ENDED
    write_counts_of(tmp_path, range(100, 100 + MAX_ENDED))  # once more, into what was merged
    merge_ended(tmp_path, lambda pid: pid in alive)
    assert sum(counted(tmp_path).values()) == sum(before.values()) + 2 * MAX_ENDED * 1.5


def test_files_of_ended_processes_stay_when_they_are_few(tmp_path: Path) -> None:
    write_counts_of(tmp_path, range(MAX_ENDED))
    before = sorted(tmp_path.iterdir())
    merge_ended(tmp_path, lambda _: False)
    assert sorted(tmp_path.iterdir()) == before


def test_files_of_ended_processes_stay_when_the_merged_one_has_no_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_counts_of(tmp_path, range(MAX_ENDED + 1))
    before = counted(tmp_path)
    monkeypatch.setattr("os.posix_fallocate", _no_space)
    with pytest.raises(OSError, match="No space left"):
        merge_ended(tmp_path, lambda _: False)
    assert counted(tmp_path) == before
    assert len(list(tmp_path.glob("*.db"))) == 2 * MAX_ENDED + 2


def _read_only(*_: object) -> None:
    raise OSError(30, "Read-only file system")


@pytest.mark.parametrize("name", ["sentinel_project.locks.exclusive", "os.remove"])
def test_metrics_are_rendered_when_the_disk_is_read_only(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_counts_of(tmp_path, range(NO_PROCESS, NO_PROCESS + MAX_ENDED + 1))
    CountsFile(str(tmp_path / f"gauge_livesum_{NO_PROCESS}.db")).close()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(name, _read_only)
    assert b'made_up_total{of="all"} 33.0' in metrics.render()[0]
    monkeypatch.undo()


def written(counts: MmapedDict) -> dict[str, float]:
    return {key: value for key, value, _ in counts.read_all_values()}


def test_counts_file_is_read_as_prometheus_client_writes_it(tmp_path: Path) -> None:
    ours, theirs = CountsFile(str(tmp_path / "ours")), MmapedDict(str(tmp_path / "theirs"))
    for number, key in enumerate(KEYS):
        ours.write_value(key, float(number), 0.0)
        theirs.write_value(key, float(number), 0.0)
    ours.close()
    theirs.close()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert (tmp_path / "ours").stat().st_size >= 2 * INITIAL_BYTES


def test_counts_file_continues_with_stored_counts_when_it_exists(tmp_path: Path) -> None:
    for number in (1.0, 2.0):
        counts = CountsFile(str(tmp_path / "counts"))
        assert counts.read_value("key")[0] == number - 1
        counts.write_value("key", number, 0.0)
        counts.close()


def test_counts_stay_in_memory_when_the_folder_takes_no_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counts = CountsFile(str(tmp_path / "missing" / "counts"))
    for number, key in enumerate(KEYS):
        counts.write_value(key, float(number), 0.0)
    assert written(counts) == {key: float(number) for number, key in enumerate(KEYS)}
    assert "No such file or directory" in caplog.text
    counts.close()


def test_counts_move_to_memory_when_their_file_cannot_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = CountsFile(str(tmp_path / "counts"))
    counts.write_value("first", 1.0, 0.0)
    monkeypatch.setattr("os.posix_fallocate", _no_space)
    for number, key in enumerate(KEYS):
        counts.write_value(key, float(number), 0.0)
    assert written(counts) == {"first": 1.0, **{key: float(number) for number, key in enumerate(KEYS)}}
    counts.close()
    assert (tmp_path / "counts").stat().st_size == INITIAL_BYTES


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")
