"""Two workers of the gateway behind one address, over a Redis and two upstreams."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.clients.upstream import MODELS, Upstream
from tests.gateway.live import provider_entry
from tests.gateway.proxy import Proxy
from tests.gateway.workers import Workers
from tests.servers import start_server
from tests.waiting import wait_until

RECOVERY_SECONDS = 20.0
APIS = ("chat", "responses", "messages", "completions", "embeddings")


class Gateway:
    """A context manager. Clients of `root` reach one of the workers; `switch` has them reach the other."""

    def __init__(self, folder: Path, *upstreams: Upstream) -> None:
        self._upstreams = upstreams
        with ExitStack() as stack:
            self.redis = stack.enter_context(start_server(tcp=True))
            variables = {f"KEY_OF_{upstream.name.upper()}": upstream.api_key for upstream in upstreams}
            self._workers = stack.enter_context(
                Workers(
                    folder,
                    2,
                    REDIS_URL=self.redis.url,
                    SENTINEL_PROVIDERS=_providers_file(folder, upstreams),
                    SENTINEL_COOLDOWN_SECONDS="1",
                    **variables,
                )
            )
            self.key = self._workers.key
            self._ports = [urlsplit(url).port or 0 for url in self._workers.urls]
            self._proxy = stack.enter_context(Proxy(self._ports[0]))
            self.root = f"http://127.0.0.1:{self._proxy.port}"
            self._stack = stack.pop_all()

    def switch(self) -> None:
        """Lead to the other worker."""
        self._ports.reverse()
        self._proxy.switch(self._ports[0])

    def restore(self) -> None:
        """Start what a test has killed, and wait until both workers use it again."""
        for upstream in self._upstreams:
            upstream.restore()
        if not self.redis.is_running:
            self.redis.start()
        wait_until(self._is_well, RECOVERY_SECONDS)
        for worker in self._workers.each:
            self._heal(worker.url)
        for upstream in self._upstreams:
            upstream.requests.clear()

    def _heal(self, url: str) -> None:
        """Send chats to a worker until each upstream has answered one: only an answer ends a provider's trial."""
        served = set()
        for number in range(64):
            messages = [{"role": "user", "content": "?"}]
            body = {"model": MODELS[0], "conversation_id": f"heal-{number}", "messages": messages}
            headers = {"Authorization": f"Bearer {self.key}"}
            request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                served.add(answer.headers["X-Session-Provider"])
            if len(served) == len(self._upstreams):
                return

    def turns(self, since: float) -> list[dict[str, Any]]:
        """Return the log's lines of requests since a time that belong to a conversation."""
        lines = [line for worker in self._workers.each for line in worker.request_lines()]
        lines = [line for line in lines if not str(line.get("conversation_id")).startswith("heal-")]
        return [line for line in lines if "source" in line and datetime.fromisoformat(line["at"]).timestamp() >= since]

    def tracebacks(self) -> list[str]:
        """Return the logs of workers that had an unexpected error."""
        logs = [worker.log.read_text() for worker in self._workers.each]
        return [log for log in logs if "Traceback" in log]

    def _is_well(self) -> bool:
        for worker in self._workers.each:
            try:
                samples = worker.metrics()
                urllib.request.urlopen(f"{worker.url}/readyz", timeout=5).close()
            except urllib.error.HTTPError as error:  # 503 until the store answers
                error.close()
                return False
            except OSError:  # a machine so busy that it took too long
                return False
            if any(samples[f'sentinel_provider_cooling{{provider="{each.name}"}}'] for each in self._upstreams):
                return False
        return True

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()


def _providers_file(folder: Path, upstreams: tuple[Upstream, ...]) -> str:
    file = folder / "providers.toml"
    file.write_text(
        "".join(
            provider_entry(each.name, each.url, MODELS, apis=APIS, api_key_env=f"KEY_OF_{each.name.upper()}")
            for each in upstreams
        )
    )
    return str(file)
