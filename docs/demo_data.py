"""Fills a store with what a gateway in use would have there; run by screenshots.py with the server's environment."""

from __future__ import annotations

import json
import math
import os
import random
import time

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentinel_project.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.core.cache import cache  # noqa: E402

from sentinel_project.gateway.providers import health_sync  # noqa: E402
from sentinel_project.gateway.providers.failures import Cools  # noqa: E402
from sentinel_project.gateway.providers.health import Health  # noqa: E402
from sentinel_project.gateway.providers.slots import Failure  # noqa: E402
from sessions_sticky import Turn, Usage, keys, sessions  # noqa: E402
from sessions_sticky.jobs.job import Plan  # noqa: E402
from sessions_sticky.jobs.service import jobs  # noqa: E402
from sessions_sticky.queries.bulk import Move  # noqa: E402
from sessions_sticky.queries.filters import Filters  # noqa: E402

ROUTES = {
    ("openai", "gpt-5"): 920,
    ("anthropic", "claude-sonnet-4-5"): 730,
    ("openai", "gpt-5-mini"): 410,
    ("azure-eu", "gpt-5"): 260,
    ("mistral", "mistral-large"): 120,
    ("google", "gemini-3-pro"): 60,
}
OWNERS = ["acme", "globex", "initech", "support-desk", "research", "mobile-app", "umbrella"]
WORDS = ["chat", "thread", "ticket", "agent", "review", "draft"]
REASONS = {
    "provider not configured for the model": 9,
    "provider unreachable for 90 s": 23,
    "azure-eu is over its quota": 41,
    "planned maintenance": 14,
}
MOVED_FROM = ("azure-eu", "google")
"""The providers from which sessions are moved."""


def fill() -> None:
    """Make the sessions, and what happened to them."""
    settings.SESSIONS_STICKY["PROVIDERS"] = None  # google is no longer configured
    random.seed(5)
    routes = [route for route, number in ROUTES.items() for _ in range(number)]
    random.shuffle(routes)
    _create([route for route in routes if route[0] in MOVED_FROM])
    _move()
    _create([route for route in routes if route[0] not in MOVED_FROM])  # the most recently active
    _count_the_day()
    _chat_for_an_hour()


def _create(routes: list[tuple[str, str]]) -> None:
    for provider, model in routes:
        conversation_id = f"{random.choice(WORDS)}-{random.randrange(10**6):06}"
        sessions.create(conversation_id, provider, model, random.choice(OWNERS), replace=True)


def _move() -> None:
    """Move sessions as the gateway does, and as operators do."""
    client, minute = cache.client.get_client(), int(time.time()) // 60
    for reason, number in REASONS.items():
        for session in [entry.session for entry in sessions.filter(provider="azure-eu").page(limit=number).entries]:
            sessions.rebind(session, provider="openai", model=session.model, reason=reason)
        field = json.dumps([str(minute), "moves", reason, "gateway", "azure-eu", "openai"], separators=(",", ":"))
        client.hincrby(keys.usage("activity", minute // 60), field, number)
    plan = Plan(Filters("google"), Move("mistral", "mistral-large", "contract ended"))
    jobs.wait(jobs.start(plan, actor="ann"), 10)


def _count_the_day() -> None:
    """Give the hours before this one their share, as a day in an office has it."""
    client, hour = cache.client.get_client(), int(time.time()) // 3600
    for ago in range(1, 24):
        busy = math.exp(-(((hour - ago) % 24 - 13.5) ** 2) / 18)
        for (provider, model), number in ROUTES.items():
            created = int(number * (0.05 + busy) * random.uniform(0.4, 0.6))
            client.hset(keys.created("hour", hour - ago), keys.route_name(provider, model), created)


def _chat_for_an_hour() -> None:
    """Record the turns of the last hour, as the recorder of a worker does; one provider was down for some minutes."""
    client, minute = cache.client.get_client(), int(time.time()) // 60
    for ago in range(1, 60):
        began = minute - ago
        activity = keys.usage("activity", began // 60)
        for (provider, _), number in ROUTES.items():
            chats = int(number * random.uniform(0.04, 0.06))
            is_down = provider == "mistral" and 20 <= ago < 26
            field = ["spilled", provider, "openai"] if is_down else ["hit", provider, provider]
            client.hincrby(activity, json.dumps([str(began), "turns", *field], separators=(",", ":")), chats)
    usage = Usage(input=12_000, read=9_600, output=400)
    for (provider, model), number in ROUTES.items():
        turn = {"conversation_id": None, "at": time.time(), "provider": provider, "model": model, "outcome": "hit"}
        for _ in range(number // 20):
            sessions.record_turn(Turn(**turn, first_byte_ms=random.randrange(120, 900), usage=usage))


def trouble() -> None:
    """Let a provider cool down."""
    health = Health(30, lambda: ())
    health.failed("mistral", "mistral-large", Failure(Cools.PROVIDER, error="HTTP 503"))
    (mistral,) = (each for each in settings.SENTINEL_PROVIDERS if each.name == "mistral")
    health_sync.write(mistral, health.states["mistral"], health.now())


if __name__ == "__main__":
    fill()
    trouble()
