"""The gateways of bench/worth.py, each over four providers, with its best settings for affinity.

A tenth of the time of real conversations: what can be configured in seconds (cooldowns, prompt caches) is a tenth too.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.cached_upstream import Upstream
from bench.conversations import MODELS
from tests.gateway.live import wait_until_healthy
from tests.gateway.workers import Workers
from tests.servers import Server, free_port, start_server

PEERS = Path(os.environ.get("PEERS_DIR", Path(tempfile.gettempdir()) / "peers"))
"""Where bench/peers.sh installs LiteLLM and Portkey."""
COOLDOWN_SECONDS = 3
"""A tenth of this gateway's default; LiteLLM's documentation uses 30 s too."""
CACHE_SECONDS = 30
"""A tenth of five minutes."""
PROVIDERS = 4
START_SECONDS = 300


class Gateway(NamedTuple):
    """A running gateway: where it answers, what headers it wants, its Redis, and how it gets a fifth provider.

    `add` returns the URLs from then on.
    """

    urls: list[str]
    headers: dict[str, str]
    redis: Server | None
    add: Callable[[], list[str]]


@contextmanager
def ours(upstreams: Sequence[Upstream]) -> Iterator[Gateway]:
    """Run two workers of this gateway."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "providers.toml"

        def write(used: Sequence[Upstream]) -> None:
            file.write_text(
                "".join(
                    f'[[provider]]\nname = "{each.name}"\nbase_url = "{each.url}"\nmodels = {json.dumps(MODELS)}\n'
                    f"cache_seconds = {CACHE_SECONDS}\n"
                    for each in used
                )
            )

        write(upstreams[:PROVIDERS])
        store = stack.enter_context(start_server())
        variables = {"REDIS_URL": store.url, "SENTINEL_PROVIDERS": str(file)}
        variables["SENTINEL_COOLDOWN_SECONDS"] = str(COOLDOWN_SECONDS)
        workers = stack.enter_context(Workers(folder, 2, **variables))

        def add() -> list[str]:
            write(upstreams)
            return workers.urls

        yield Gateway(workers.urls, {"Authorization": f"Bearer {workers.key}"}, store, add)


@contextmanager
def litellm(upstreams: Sequence[Upstream]) -> Iterator[Gateway]:
    """Run two processes of LiteLLM on one Redis, with affinity by session and by prompt.

    It reads its file once: for a fifth provider two more processes start on a new file, and the clients change over.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = stack.enter_context(start_server(tcp=True))

        def start(used: Sequence[Upstream]) -> list[str]:
            models = [
                {
                    "model_name": model,
                    "litellm_params": {"model": f"openai/{model}", "api_base": each.url, "api_key": "sk-x"},
                    "model_info": {"id": f"{each.name}-{model}"},
                }
                for each in used
                for model in MODELS
            ]
            router = {
                "optional_pre_call_checks": ["session_affinity", "prompt_caching"],
                "redis_host": "127.0.0.1",
                "redis_port": store.port,
                "num_retries": 3,
                "allowed_fails": 0,
                "cooldown_time": COOLDOWN_SECONDS,
            }
            general = {"dangerously_permit_weak_or_unset_master_key": True}
            config = {"model_list": models, "router_settings": router, "general_settings": general}
            file = folder / f"{len(used)}.yaml"
            file.write_text(json.dumps(config))  # JSON is YAML
            return _run_each(stack, folder, [_litellm_command(file), _litellm_command(file)], "/health/liveliness")

        yield Gateway(start(upstreams[:PROVIDERS]), {}, store, lambda: start(upstreams))


def _litellm_command(file: Path) -> tuple[list[str], int]:
    port = free_port()
    command = [str(PEERS / "litellm/bin/litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--num_workers", "1"], port


@contextmanager
def portkey(upstreams: Sequence[Upstream]) -> Iterator[Gateway]:
    """Run Portkey: its open gateway has no affinity. A request that fails goes to another choice, twice."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        program = PEERS / "node_modules/@portkey-ai/gateway/build/start-server.js"
        urls = _run_each(stack, folder, [(["node", str(program), f"--port={port}", "--headless"], port)], "/")
        targets = [{"provider": "openai", "custom_host": each.url, "api_key": "x"} for each in upstreams[:PROVIDERS]]
        choice = {"strategy": {"mode": "loadbalance"}, "targets": targets}
        config = {"strategy": {"mode": "fallback"}, "targets": [choice] * 3}
        yield Gateway(urls, {"x-portkey-config": json.dumps(config)}, None, lambda: urls)


@contextmanager
def nginx(upstreams: Sequence[Upstream]) -> Iterator[Gateway]:
    """Run nginx, each conversation hashed to a provider by its header."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, file = free_port(), folder / "nginx.conf"

        def write(used: Sequence[Upstream]) -> None:
            wait = COOLDOWN_SECONDS
            servers = "\n".join(f"server 127.0.0.1:{each.port} max_fails=1 fail_timeout={wait}s;" for each in used)
            names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            paths = "".join(f"{name}_temp_path {folder};\n" for name in names)
            file.write_text(
                f"daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}}\n"
                f"http {{ access_log off; client_max_body_size 64m; client_body_buffer_size 1m;\n{paths}"
                f"upstream providers {{ hash $http_x_session_affinity consistent;\n{servers} }}\n"
                f"server {{ listen 127.0.0.1:{port}; location = /healthz {{ return 200; }}\n"
                "location / { proxy_pass http://providers;"
                " proxy_next_upstream error timeout http_429 non_idempotent; } } }\n"
            )

        write(upstreams[:PROVIDERS])
        urls = _run_each(stack, folder, [(["nginx", "-p", str(folder), "-c", str(file)], port)], "/healthz")

        def add() -> list[str]:
            write(upstreams)
            command = ["nginx", "-p", str(folder), "-c", str(file), "-s", "reload"]
            subprocess.run(command, check=True, capture_output=True)
            return urls

        yield Gateway(urls, {}, None, add)


GATEWAYS = {"ours": ours, "litellm": litellm, "portkey": portkey, "nginx": nginx}


def _run_each(stack: ExitStack, folder: Path, commands: list[tuple[list[str], int]], health: str) -> list[str]:
    """Start programs and wait until each answers; return their URLs."""
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "HF_HUB_OFFLINE": "1"}
    started = []
    for command, port in commands:
        log = folder / f"log-{port}"
        with open(log, "wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, env=env)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        started.append((f"http://127.0.0.1:{port}", process, log))
    for url, process, log in started:
        wait_until_healthy(url, process, log, START_SECONDS, path=health)
    return [url for url, _, _ in started]
