"""How the gateway's cost grows: requests per second by workers and connections, and time to a stream's first byte.

    python bench/gateway.py [FOLDER]     # needs wrk; writes gateway.svg to FOLDER, docs/ by default

Everything runs on this machine and shares its cores (load, upstream, Redis, gateway): compare figures of one run only.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import aiohttp  # noqa: E402

from bench.curve import draw  # noqa: E402
from tests.servers import free_port, start_server  # noqa: E402

WORKERS, CONNECTIONS, SECONDS = (1, 2, 4), (10, 100, 1000), 5
IN_FLIGHT, STREAMS = 16, 640

BODY = '{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]'
LOAD = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer KEY"
local n = 0
request = function()
  n = n + 1
  local id = "c-" .. (n % 1000)
  return wrk.format(nil, nil, nil, 'BODY,"conversation_id":"' .. id .. '"}')
end
"""


def main(folder: Path) -> None:
    """Measure, print and draw."""
    if not shutil.which("wrk"):
        sys.exit("wrk is missing: install it (Debian's package wrk)")
    with tempfile.TemporaryDirectory() as scratch, start_server(tcp=True) as store, upstream_served() as upstream:
        environment = gateway_environment(Path(scratch), store.url, upstream)
        key = make_key(environment)
        script = Path(scratch, "load.lua")
        script.write_text(LOAD.replace("KEY", key).replace("BODY", BODY))
        print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {SECONDS} s each; requests/s (median latency)")
        print("workers  " + "".join(f"{count:>6} connections  " for count in CONNECTIONS))
        curves: dict[str, list[tuple[int, float]]] = {}
        for workers in WORKERS:
            with gateway_served(environment, workers) as url:
                row = [_load(url, script, count) for count in CONNECTIONS]
                if workers == 1:
                    direct, through = asyncio.run(_first_bytes(f"{upstream}/chat/completions", url, key))
            print(f"{workers:7}  " + "".join(f"{rate:8.0f} ({latency:>8})  " for rate, latency in row))
            curves[f"{workers} worker{'s' * (workers > 1)}"] = [
                (count, rate) for count, (rate, _) in zip(CONNECTIONS, row, strict=True)
            ]
        print(f"\nfirst byte of a stream, {IN_FLIGHT} in flight, medians:")
        added = through - direct
        print(f"  upstream {direct * 1e3:.2f} ms, with the gateway {through * 1e3:.2f} ms, added {added * 1e3:.2f} ms")
        draw(folder / "gateway.svg", "Requests per second by connections", curves)


def _load(url: str, script: Path, connections: int) -> tuple[float, str]:
    command = ["wrk", "-t1", f"-c{connections}", "--timeout", "10s", "--latency", "-s", str(script)]
    subprocess.run([*command, "-d1s", url], check=True, capture_output=True)
    output = subprocess.run([*command, f"-d{SECONDS}s", url], check=True, capture_output=True, text=True).stdout
    if bad := re.search(r"(Non-2xx.*|Socket errors.*)", output):
        print(f"  {connections} connections: {bad[0]}", file=sys.stderr)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]), re.search(r"50%\s+(\S+)", output)[1]  # type: ignore[index]


async def _first_bytes(upstream: str, gateway: str, key: str) -> tuple[float, float]:
    """Return the median time to the first byte, from the upstream itself and through the gateway, in turns."""
    times: dict[str, list[float]] = {upstream: [], gateway: []}
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as client:

        async def stream(url: str, number: int) -> None:
            body = f'{BODY},"stream":true,"conversation_id":"s-{number}"}}'
            for _ in range(STREAMS // IN_FLIGHT):
                started = time.perf_counter()
                async with client.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
                    await response.content.readany()
                    times[url].append(time.perf_counter() - started)
                    await response.read()

        for _ in range(3):
            for url in times:
                await asyncio.gather(*(stream(url, number) for number in range(IN_FLIGHT)))
    return statistics.median(times[upstream]), statistics.median(times[gateway])


def make_key(environment: dict[str, str]) -> str:
    """Create the database if there is none, and an API key in it."""
    manage = [sys.executable, str(ROOT / "manage.py")]
    subprocess.run([*manage, "migrate", "-v0"], env=environment, check=True)
    made = subprocess.run([*manage, "createkey", "bench"], env=environment, check=True, capture_output=True, text=True)
    return made.stdout.split()[-1]


def gateway_environment(folder: Path, store: str, upstream: str) -> dict[str, str]:
    """Return the variables of a gateway with two providers at one address."""
    providers = folder / "providers.toml"
    providers.write_text(
        "".join(
            f'[[provider]]\nname = "{name}"\nbase_url = "{upstream}"\nmodels = ["gpt-4o"]\n' for name in ("one", "two")
        )
    )
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SENTINEL_DATA_DIR": str(folder),
        "SENTINEL_PROVIDERS": str(providers),
        "REDIS_URL": store,
        "SECRET_KEY": "bench-only",
    }


@contextmanager
def upstream_served() -> Iterator[str]:
    """Serve bench/upstream.py; yield its base URL."""
    with _served("bench.upstream:application", 1, {**os.environ, "PYTHONPATH": str(ROOT)}) as url:
        yield f"{url}/v1"


@contextmanager
def gateway_served(environment: dict[str, str], workers: int) -> Iterator[str]:
    """Serve the gateway; yield the URL of its chat completions."""
    protocol = ("--http", "sentinel_project.http_protocol:LimitedProtocol")  # as in production
    with _served("sentinel_project.asgi:application", workers, environment, *protocol) as url:
        yield f"{url}/v1/chat/completions"


@contextmanager
def _served(application: str, workers: int, environment: dict[str, str], *options: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--workers", str(workers)]
    command += ["--log-level", "warning", "--no-access-log", "--backlog", "4096", *options]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{url}/healthz", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(0.5 * workers)  # the other workers
        yield url
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
