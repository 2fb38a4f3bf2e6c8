"""What stickiness is worth: how much of the input comes from the providers' prompt caches, with and without faults.

    python bench/worth.py [CONVERSATIONS [TURNS]]     # 80 conversations of 10 turns by default

Upstreams with prompt caches of their own (tests/clients/account.py: blocks of 128 tokens) behind two workers of the
gateway; the turns of a conversation alternate between the workers. "The most there is" is what one cache for all would
give, "a fresh choice" sends each turn to any upstream. Where nginx is installed it is measured beside. A cold turn
reads less than half of what the conversation's last turn had; the affected conversations are those whose provider was
killed.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import aiohttp  # noqa: E402

from tests.clients.account import PromptCache  # noqa: E402
from tests.clients.upstream import Upstream  # noqa: E402
from tests.gateway.live import environment, manage, wait_until_healthy  # noqa: E402
from tests.gateway.workers import Workers  # noqa: E402
from tests.servers import free_port, start_server  # noqa: E402

MODEL, SEED, IN_FLIGHT = "gpt-5.2", 7, 8
PRICE = {"input": 1.25, "cached_input": 0.125}
"""Dollars for a million tokens: GPT-5's list price of November 2026."""
BROKEN_FROM, BROKEN_UNTIL = 3, 6
"""Turns between which a fault lasts."""
RECOVERY_SECONDS = 5
"""The gateway's cooldown is 2 s here: the benchmark's turns take a second, not minutes."""
THINK_SECONDS = 3
"""The longest time that a client takes between two turns; agents take longer."""
WORDS = ("provider", "prompt", "cache", "turn", "model", "answer", "tool", "file", "line", "error", "test", "build")

Identify = Callable[[int], tuple[dict[str, str], dict[str, Any]]]
NO_ID = "no id"
HEADER = "header (OpenCode)"
WAYS: dict[str, Identify] = {
    NO_ID: lambda number: ({}, {}),
    HEADER: lambda number: ({"X-Session-Affinity": f"ses-{number}"}, {}),
    "body (conversation_id)": lambda number: ({}, {"conversation_id": f"conv-{SEED}-{number}"}),
}


class Turn(NamedTuple):
    """What one turn used; `provider` is empty for a gateway that does not say it."""

    provider: str
    tokens: int
    cached: int


Turns = list[list[Turn]]
"""By conversation."""


class Setup(NamedTuple):
    """A running gateway: its addresses, a key, and what a fault needs to break."""

    urls: list[str]
    key: str
    upstreams: list[Upstream]
    store: Any
    providers: Path | None


Fault = Callable[[Setup, int], Awaitable[None]]
"""Is called before each turn, with its number."""


def conversation(number: int, turns: int) -> Iterator[list[dict[str, str]]]:
    """Yield the messages of each turn: a long system prompt, then questions and answers of some hundred words."""
    dice = random.Random(f"{SEED}-{number}")
    messages = [{"role": "system", "content": f"You are agent {number}. " + _text(dice, 2_500)}]
    for _ in range(turns):
        messages.append({"role": "user", "content": _text(dice, dice.randint(50, 600))})
        yield list(messages)
        messages.append({"role": "assistant", "content": _text(dice, dice.randint(50, 400))})


def _text(dice: random.Random, words: int) -> str:
    return " ".join(dice.choices(WORDS, k=words))


def ideal(conversations: Sequence[list[list[dict[str, str]]]], caches: int) -> Turns:
    """Return the turns where each goes to any of so many caches."""
    dice, stores = random.Random(SEED), [PromptCache() for _ in range(caches)]
    turns: Turns = [[] for _ in conversations]
    for turn in zip(*conversations, strict=True):
        for number, messages in enumerate(turn):
            prompt = [None, [[each["role"], each["content"]] for each in messages]]
            tokens, read, _ = dice.choice(stores).read(MODEL, prompt)
            turns[number].append(Turn("", tokens, read))
    return turns


async def no_fault(setup: Setup, turn: int) -> None:
    """Break nothing."""


async def provider_killed(setup: Setup, turn: int) -> None:
    """Kill a provider; after three turns it is back, with an empty cache."""
    victim = setup.upstreams[0]
    if turn == BROKEN_FROM:
        await asyncio.to_thread(victim.kill)
    if turn == BROKEN_UNTIL:
        victim.account.cache = PromptCache()
        victim.start()
        await asyncio.sleep(RECOVERY_SECONDS)


async def redis_killed(setup: Setup, turn: int) -> None:
    """Kill the store; after three turns it is back, empty."""
    if turn == BROKEN_FROM:
        setup.store.kill()
    if turn == BROKEN_UNTIL:
        setup.store.start()
        await asyncio.sleep(RECOVERY_SECONDS)


async def provider_added(setup: Setup, turn: int) -> None:
    """Add a fifth provider."""
    if turn == BROKEN_FROM and setup.providers is not None:
        setup.providers.write_text(setup.providers.read_text() + _entry(setup.upstreams[-1]))
        await asyncio.sleep(RECOVERY_SECONDS)


FAULTS: dict[str, Fault] = {
    "no fault": no_fault,
    "a provider killed, back cold": provider_killed,
    "Redis killed, back empty": redis_killed,
    "a fifth provider added": provider_added,
}


async def replay(
    setup: Setup, conversations: Sequence[list[list[dict[str, str]]]], identify: Identify, fault: Fault
) -> Turns:
    """Send all conversations, a turn of each after the other."""
    turns: Turns = [[] for _ in conversations]
    limit, dice = asyncio.Semaphore(IN_FLIGHT), random.Random(SEED)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {setup.key}"}) as client:

        async def ask(number: int, messages: list[dict[str, str]]) -> None:
            headers, fields = identify(number)
            body = {"model": MODEL, "messages": messages, **fields}
            await asyncio.sleep(dice.uniform(0, THINK_SECONDS))
            url = setup.urls[(number + len(turns[number])) % len(setup.urls)]
            async with limit, client.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
                answer = json.loads(await response.read())
            usage = answer["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            provider = response.headers.get("X-Session-Provider", "")
            turns[number].append(Turn(provider, usage["prompt_tokens"], cached))

        for at, turn in enumerate(zip(*conversations, strict=True)):
            await fault(setup, at)
            await asyncio.gather(*(ask(number, messages) for number, messages in enumerate(turn)))
    return turns


def share(turns: Turns) -> float:
    """Return the share of the input that came from cache."""
    every = [turn for each in turns for turn in each]
    return sum(turn.cached for turn in every) / sum(turn.tokens for turn in every)


def cost(turns: Turns) -> float:
    """Return what the input costs, in dollars."""
    every = [turn for each in turns for turn in each]
    cached, tokens = sum(turn.cached for turn in every), sum(turn.tokens for turn in every)
    return ((tokens - cached) * PRICE["input"] + cached * PRICE["cached_input"]) / 1_000_000


def cold(turns: list[Turn]) -> int:
    """Return how many turns read less than half of what the last one had."""
    return sum(2 * turn.cached < before.tokens for before, turn in pairwise(turns))


def affected(turns: Turns, victim: str) -> Turns:
    """Return the conversations that the killed provider served last before it was killed."""
    return [each for each in turns if each[BROKEN_FROM - 1].provider == victim]


@contextmanager
def gateway(count: int) -> Iterator[Setup]:
    """Run two workers over four of `count` upstreams."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstreams = [stack.enter_context(Upstream(f"up{number}")) for number in range(count)]
        variables = {_variable(each): each.api_key for each in upstreams}
        file = folder / "providers.toml"
        file.write_text("".join(map(_entry, upstreams[:4])))
        store = stack.enter_context(start_server())
        variables |= {"REDIS_URL": store.url, "SENTINEL_PROVIDERS": str(file), "SENTINEL_COOLDOWN_SECONDS": "2"}
        workers = stack.enter_context(Workers(folder, 2, **variables))
        made = manage("createkey", "bench", env=environment(folder, **variables))
        yield Setup([each.url for each in workers.each], made.stdout.split()[-1], upstreams, store, file)


@contextmanager
def nginx() -> Iterator[Setup]:
    """Run nginx over four upstreams, each conversation hashed to one by its header; they share an API key."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstreams = [stack.enter_context(Upstream(f"up{number}")) for number in range(4)]
        for each in upstreams:
            each.api_key = "key"
        port, log = free_port(), folder / "log"
        servers = "\n".join(f"server 127.0.0.1:{each.port} max_fails=1 fail_timeout=2s;" for each in upstreams)
        file = folder / "nginx.conf"
        file.write_text(
            f"daemon off; pid {folder}/pid; error_log {log}; events {{}}\n"
            f"http {{ access_log off; client_max_body_size 8m;\n"
            f"client_body_temp_path {folder}; proxy_temp_path {folder};\n"
            f"fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};\n"
            f"upstream four {{ hash $http_x_session_affinity consistent; {servers} }}\n"
            f"server {{ listen 127.0.0.1:{port}; location = /healthz {{ return 200; }}\n"
            "location / { proxy_pass http://four; proxy_next_upstream error timeout non_idempotent;"
            " add_header X-Session-Provider $upstream_addr; } } }\n"
        )
        process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(file)], stderr=subprocess.DEVNULL)
        stack.callback(process.terminate)
        log.touch()
        wait_until_healthy(f"http://127.0.0.1:{port}", process, log, 10)
        yield Setup([f"http://127.0.0.1:{port}"], "key", upstreams, None, None)


def _variable(upstream: Upstream) -> str:
    return upstream.api_key.upper().replace("-", "_")


def _entry(upstream: Upstream) -> str:
    return (
        f'[[provider]]\nname = "{upstream.name}"\nbase_url = "{upstream.url}"\nmodels = ["{MODEL}"]\n'
        f'api_key_env = "{_variable(upstream)}"\n'
    )


def report(name: str, turns: Turns, victim: str | None = None) -> None:
    """Print a row."""
    hit = affected(turns, victim) if victim is not None else []
    per_affected = f"{sum(map(cold, hit)) / len(hit):5.2f} of {len(hit)}" if hit else ""
    print(f"{name:44}{share(turns):7.1%}{sum(map(cold, turns)):8}{cost(turns):9.2f}  {per_affected}", flush=True)


def main(count: int, turns: int) -> None:
    """Replay and print."""
    conversations = [list(conversation(number, turns)) for number in range(count)]
    print(f"{count} conversations of {turns} turns, four upstreams; a fault lasts from turn {BROKEN_FROM + 1} on")
    print(f"{'':44}{'cached':>7}{'cold':>8}{'dollars':>9}  cold turns for each affected conversation")
    report("the most there is", ideal(conversations, 1))
    report("a fresh choice each turn", ideal(conversations, 4))
    for way, identify in WAYS.items():
        for what, fault in FAULTS.items():
            if way != NO_ID and fault is not no_fault and way != HEADER:
                continue
            with gateway(5) as setup:
                found = asyncio.run(replay(setup, conversations, identify, fault))
                report(f"{way}, {what}", found, "up0" if fault is provider_killed else None)
    if not shutil.which("nginx"):
        print("nginx is not installed: not measured")
        return
    for fault in (no_fault, provider_killed):
        with nginx() as setup:
            found = asyncio.run(replay(setup, conversations, WAYS[HEADER], fault))
            name = next(name for name, each in FAULTS.items() if each is fault)
            victim = f"127.0.0.1:{setup.upstreams[0].port}" if fault is provider_killed else None
            report(f"nginx hash consistent, {name}", found, victim)


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:3]]
    began = time.monotonic()
    main(*given, *(80, 10)[len(given) :])
    print(f"{time.monotonic() - began:.0f} s")
