"""Conversations as agents have them: histories that grow, several models for one id, titles, and subagents."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

LARGE, OTHER, SMALL = "gpt-5.2", "gpt-5.1", "gpt-5-mini"
MODELS = (LARGE, OTHER, SMALL)
AGENTS = 3
"""Kinds of agents. All sessions of one have the same beginning of their prompts."""
WORDS = ("provider", "prompt", "cache", "turn", "model", "answer", "tool", "file", "line", "error", "test", "build")

Message = dict[str, str]


class Thread(NamedTuple):
    """The turns of one id with one model: what has one prompt in the caches. `starts_after` counts turns' times."""

    session_id: str
    model: str
    starts_after: float
    turns: list[list[Message]]


def session(name: str, number: int, seed: int) -> list[Thread]:
    """Return the threads of one session: of 10 to 60 turns, a title, perhaps a subagent and a change of the model."""
    dice = random.Random(f"{seed}-{number}")
    agent = random.Random(f"agent {number % AGENTS}")
    system = f"You are agent {number % AGENTS}. {_text(agent, 1_500)}\n{_text(dice, dice.randint(300, 3_000))}"
    count = 10 + int(51 * dice.random() ** 2)
    turns = list(_turns(dice, system, count))
    title = [[{"role": "system", "content": "Name this conversation."}, turns[0][-1]]]
    start = dice.uniform(0, 10)
    threads = [Thread(name, LARGE, start, turns), Thread(name, SMALL, start, title)]
    if number % 3 == 0:
        subagent = f"You are a subagent of agent {number % AGENTS}. {_text(agent, 800)}"
        after = start + dice.randint(2, count - 2)
        threads.append(Thread(f"{name}-sub", LARGE, after, list(_turns(dice, subagent, dice.randint(10, 15)))))
    if number % 4 == 0:
        threads.append(Thread(name, OTHER, start + count // 2, turns[count // 2 : count // 2 + 4]))
    return threads


def _turns(dice: random.Random, system: str, count: int) -> Iterator[list[Message]]:
    messages = [{"role": "system", "content": system}]
    for _ in range(count):
        messages.append({"role": "user", "content": _text(dice, dice.randint(50, 400))})
        yield list(messages)
        messages.append({"role": "assistant", "content": _text(dice, dice.randint(30, 250))})


def _text(dice: random.Random, words: int) -> str:
    return " ".join(dice.choices(WORDS, k=words))
