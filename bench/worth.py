"""How much of the input comes from the providers' prompt caches, with the id of the conversation in different places.

    python bench/worth.py [CONVERSATIONS [TURNS]]     # 40 conversations of 8 turns by default

Four upstreams with prompt caches of their own (tests/clients/account.py: blocks of 128 tokens) behind the gateway with
two workers. "The most there is" is what one cache for all would give; "a fresh choice" sends each turn to any upstream.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import aiohttp  # noqa: E402

from tests.clients.account import PromptCache  # noqa: E402
from tests.clients.upstream import Upstream  # noqa: E402
from tests.gateway.live import environment, manage  # noqa: E402
from tests.gateway.workers import Workers  # noqa: E402
from tests.servers import start_server  # noqa: E402

MODEL, SEED, IN_FLIGHT = "gpt-5.2", 7, 8
WORDS = ("provider", "prompt", "cache", "turn", "model", "answer", "tool", "file", "line", "error", "test", "build")

Identify = Callable[[int], tuple[dict[str, str], dict[str, Any]]]
WAYS: dict[str, Identify] = {
    "no id": lambda number: ({}, {}),
    "header (OpenCode)": lambda number: ({"X-Session-Affinity": f"ses-{number}"}, {}),
    "body (conversation_id)": lambda number: ({}, {"conversation_id": f"conv-{SEED}-{number}"}),
}


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


def ideal(conversations: Sequence[list[list[dict[str, str]]]], caches: int) -> float:
    """Return the share from cache where each turn goes to any of so many caches."""
    dice, stores = random.Random(SEED), [PromptCache() for _ in range(caches)]
    total = cached = 0
    for turn in zip(*conversations, strict=True):
        for messages in turn:
            prompt = [None, [[each["role"], each["content"]] for each in messages]]
            tokens, read, _ = dice.choice(stores).read(MODEL, prompt)
            total, cached = total + tokens, cached + read
    return cached / total


async def replay(url: str, key: str, conversations: Sequence[list[list[dict[str, str]]]], identify: Identify) -> float:
    """Send all conversations, a turn of each after the other; return the share of the input that came from cache."""
    total = cached = 0
    limit = asyncio.Semaphore(IN_FLIGHT)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as client:

        async def ask(number: int, messages: list[dict[str, str]]) -> None:
            nonlocal total, cached
            headers, fields = identify(number)
            body = {"model": MODEL, "messages": messages, **fields}
            async with limit, client.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
                usage = json.loads(await response.read())["usage"]
            total += usage["prompt_tokens"]
            cached += usage["prompt_tokens_details"]["cached_tokens"]

        for turn in zip(*conversations, strict=True):
            await asyncio.gather(*(ask(number, messages) for number, messages in enumerate(turn)))
    return cached / total


def main(count: int, turns: int) -> None:
    """Replay and print."""
    conversations = [list(conversation(number, turns)) for number in range(count)]
    print(f"{count} conversations of {turns} turns, four upstreams; share of the input that came from cache")
    print(f"{'the most there is':28}{ideal(conversations, 1):7.1%}")
    print(f"{'a fresh choice each turn':28}{ideal(conversations, 4):7.1%}")
    for name, identify in WAYS.items():
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            upstreams = [stack.enter_context(Upstream(f"up{number}")) for number in range(4)]
            variables = {each.api_key.upper().replace("-", "_"): each.api_key for each in upstreams}
            file = folder / "providers.toml"
            file.write_text(
                "".join(
                    f'[[provider]]\nname = "{each.name}"\nbase_url = "{each.url}"\nmodels = ["{MODEL}"]\n'
                    f'api_key_env = "{each.api_key.upper().replace("-", "_")}"\n'
                    for each in upstreams
                )
            )
            store = stack.enter_context(start_server())
            variables |= {"REDIS_URL": store.url, "SENTINEL_PROVIDERS": str(file)}
            workers = stack.enter_context(Workers(folder, 2, **variables))
            made = manage("createkey", "bench", env=environment(folder, **variables))
            share = asyncio.run(replay(workers.each[0].url, made.stdout.split()[-1], conversations, identify))
            print(f"{name:28}{share:7.1%}", flush=True)


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:3]]
    main(*given, *(40, 8)[len(given) :])
