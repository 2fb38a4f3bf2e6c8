"""Prometheus metrics, if `SESSIONS_STICKY["METRICS"]` is on; otherwise prometheus-client is not imported.

| metric | labels |
| --- | --- |
| `sessions_sticky_resolutions_total` | `outcome`, `provider` |
| `sessions_sticky_resolve_seconds` (histogram) | |
| `sessions_sticky_restored_total` (sessions that the store had lost) | |
| `sessions_sticky_rebinds_total` (operators' texts: history) | `reason`, `by`, `from_provider`, `to_provider` |
| `sessions_sticky_turns_total` | `provider`, `model`, `outcome`; `failed` counts failed attempts |
| `sessions_sticky_tokens_total` | `provider`, `model`, `kind`: `input` (all of it), `read`, `written` ... |
| `sessions_sticky_money_total` (in the prices' currency) | `provider`, `model`, `kind`: `saved`, `overspent`, `lost` |
| `sessions_sticky_first_byte_seconds` (histogram) | `provider`, `model` |
| `sessions_sticky_store_errors_total` | `error` |
| `sessions_sticky_breaker_open` (1 while the store is considered down) | |
| `sessions_sticky_sessions` (live sessions; set by `export_gauges`, as is the next) | `provider` |
| `sessions_sticky_store_memory_ratio` (used part of maxmemory; 0 without a limit) | |

`by` is `gateway` or `operator`; an operator's `reason` is `operator`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache, partial
from typing import Any

from sessions_sticky.conf import conf
from sessions_sticky.locks import fork_safe_lock

RESOLVE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Buckets in seconds, from a local Redis (75 us) to a timeout (250 ms)."""
MAX_LABELS = 100
"""Maximum number of values of a label in a process: providers and reasons are external, and each takes memory."""
GATEWAY = "gateway"
"""The actor of automatic changes."""


FIRST_BYTE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKEN_KINDS = ("input", "read", "written", "output", "expected", "lost")
MILLION = 1_000_000
"""Money comes in millionths."""


class _Metrics:
    """The metrics, which register themselves with prometheus-client."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        counter = partial(Counter, namespace="sessions_sticky")
        gauge = partial(Gauge, namespace="sessions_sticky", multiprocess_mode="livemostrecent")
        histogram = partial(Histogram, namespace="sessions_sticky")
        route = ["provider", "model"]
        moved = ["reason", "by", "from_provider", "to_provider"]
        self.resolutions = counter("resolutions_total", "Resolved conversations.", ["outcome", "provider"])
        self.resolve_seconds = histogram("resolve_seconds", "Time to resolve a conversation.", buckets=RESOLVE_BUCKETS)
        self.restored = counter("restored_total", "Sessions bound again after the store had lost them.")
        self.rebinds = counter("rebinds_total", "Conversations moved to another provider or model.", moved)
        self.turns = counter("turns_total", "Turns of conversations.", [*route, "outcome"])
        self.tokens = counter("tokens_total", "Tokens of turns.", [*route, "kind"])
        self.money = counter("money_total", "What prompt caches saved and moves cost.", [*route, "kind"])
        self.first_byte_seconds = histogram(
            "first_byte_seconds", "Time to the first byte of an answer.", route, buckets=FIRST_BYTE_BUCKETS
        )
        self.store_errors = counter("store_errors_total", "Failed requests to the session store.", ["error"])
        self.breaker_open = gauge("breaker_open", "Whether the store is considered down.", multiprocess_mode="livemax")
        self.sessions = gauge("sessions", "Live sessions.", ["provider"])
        self.memory_ratio = gauge("store_memory_ratio", "Used part of the store's maxmemory.")


_registering = fork_safe_lock()
_register = cache(_Metrics)


@cache
def _metrics() -> _Metrics:
    with _registering:  # two threads must not register twice at the first resolve
        return _register()


def resolved(outcome: str, provider: str, asked_at: float) -> None:
    """Count a resolution that began at `asked_at`, in `time.monotonic()` seconds."""
    if conf.metrics:
        _child(_metrics().resolutions, outcome, _bounded("provider", provider)).inc()
        _metrics().resolve_seconds.observe(time.monotonic() - asked_at)


def restored(number: int = 1) -> None:
    """Count sessions that were bound again after the store had lost them."""
    if conf.metrics:
        _metrics().restored.inc(number)


def rebound(reason: str, actor: str, from_provider: str, to_provider: str, number: int = 1) -> None:
    """Count rebinds. An operator's reason is free text and may name people, so it is not used as a label."""
    if conf.metrics:
        by = GATEWAY if actor == GATEWAY else "operator"
        reason = _bounded("reason", reason) if by == GATEWAY else by
        route = _bounded("provider", from_provider), _bounded("provider", to_provider)
        _metrics().rebinds.labels(reason, by, *route).inc(number)


def used(routes: Mapping[tuple[str, ...], int], first_bytes: Iterable[tuple[str, str, int]]) -> None:
    """Count turns that are added up by provider, model, outcome and measure; first bytes are in milliseconds."""
    if not conf.metrics:
        return
    turns, tokens, money = _metrics().turns, _metrics().tokens, _metrics().money
    for (provider, model, outcome, measure), number in routes.items():
        route = _bounded("provider", provider), _bounded("model", model)
        if measure == "turns":
            _child(turns, *route, _bounded("outcome", outcome)).inc(number)
            for kind in TOKEN_KINDS:  # 0 until there are some: a rate must see the first
                _child(tokens, *route, kind)
            _child(money, *route, "saved")
        elif measure in TOKEN_KINDS:
            _child(tokens, *route, measure).inc(number)
        elif measure == "saved":  # a counter cannot decrease, but writing to a cache may cost more than it saves
            _child(money, *route, "saved" if number > 0 else "overspent").inc(abs(number) / MILLION)
        elif measure == "lost_money":
            _child(money, *route, "lost").inc(number / MILLION)
    for provider, model, milliseconds in first_bytes:
        route = _bounded("provider", provider), _bounded("model", model)
        _child(_metrics().first_byte_seconds, *route).observe(milliseconds / 1000)


def store_failed(error: str) -> None:
    """Count a store error, by the name of its exception."""
    if conf.metrics:
        _metrics().store_errors.labels(error).inc()


def breaker(*, is_open: bool) -> None:
    """Export the state of the breaker."""
    if conf.metrics:
        _metrics().breaker_open.set(is_open)


def store_measured(numbers: Mapping[str, int], memory_ratio: float) -> None:
    """Export the number of sessions by provider, 0 for providers without any left, and the memory of the store."""
    if not conf.metrics:
        return
    known = _exported | {_bounded("provider", provider) for provider in numbers}
    _exported.update(known)
    for provider in known:
        _metrics().sessions.labels(provider).set(numbers.get(provider, 0))
    _metrics().memory_ratio.set(memory_ratio)


@lru_cache(maxsize=1024)
def _child(metric: Any, *labels: str) -> Any:
    """Return a metric's child; prometheus-client checks the labels at each look-up, which takes as long as a count."""
    return metric.labels(*labels)


_exported: set[str] = set()
_seen: dict[str, set[str]] = {}


def _bounded(label: str, value: str) -> str:
    seen = _seen.setdefault(label, set())
    if value not in seen and len(seen) >= MAX_LABELS:
        return "other"
    seen.add(value)
    return value
