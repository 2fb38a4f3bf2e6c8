"""Check the configuration and the store, and suggest fixes.

Performs only reads. A check that a hosted Redis does not permit is reported as not checked.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.core.cache import caches
from django.core.checks import ERROR, Tags, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext, gettext_noop

from sessions_sticky import keys, stores
from sessions_sticky.conf import conf
from sessions_sticky.connections.commands import AllPrimaries, Command
from sessions_sticky.exceptions import InvalidSession, SessionStoreUnavailable
from sessions_sticky.queries import server_info
from sessions_sticky.queries.index_reader import IndexReader, Row
from sessions_sticky.queries.server_info import Finding, Level, format_number, make_finding
from sessions_sticky.session import Session, session_of
from sessions_sticky.stores import index
from sessions_sticky.stores.base import Store

LATENCY_READS = 20
FEW_READS = 3
MAX_LATENCY_MS = 5.0
"""Limit of the median read. A healthy read takes 0.1 ms, and a chat waits for one or two."""
MAX_SKEW_SECONDS = 2.0
GRANT = gettext_noop("Grant the rights that docs/how-to/redis-user.md lists")
SAMPLE_SIZE = 1_000
SAMPLE_STEPS = 50
"""Maximum number of SCAN steps of `SAMPLE_SIZE` keys: a database may contain many other keys."""


_checks: list[Callable[[], Iterable[Finding]]] = []


def register_check(check: Callable[[], Iterable[Finding]]) -> None:
    """Add a check of the project to `doctor`, from `AppConfig.ready`. It must not raise while the store is down."""
    _checks.append(check)


def examine(*, sample: bool = True) -> list[Finding]:
    """Return the findings for the settings and the configured store. Takes some milliseconds, writes nothing.

    Without `sample`, skip registered checks and the reading of sessions (thousands of commands), and measure the
    latency of a few reads only.
    """
    found: list[Finding] = []
    try:
        found += _settings()
        found += _examine_store(stores.for_alias(conf.cache), sample=sample)
        found += [finding for check in _checks if sample for finding in check()]
    except ImproperlyConfigured as exc:
        if not any(finding.level is Level.ERROR for finding in found):
            message = gettext("the session cache cannot be opened: %s") % exc
            found.append(Finding(Level.ERROR, "settings", message, gettext("Fix CACHES")))
    return found


def _settings() -> list[Finding]:
    """Run the system checks of the app."""
    messages = [
        message
        for message in run_checks(tags=[Tags.caches], include_deployment_checks=True)
        if (message.id or "").startswith("sessions_sticky.") and not message.is_silenced()
    ]
    return [
        Finding(Level.ERROR if message.level >= ERROR else Level.WARNING, "settings", message.msg, message.hint or "")
        for message in messages
    ] or [Finding(Level.OK, "settings", gettext("system checks passed"))]


def _examine_store(store: Store, *, sample: bool) -> Iterator[Finding]:
    """Check the latency, and if the store is available all else."""
    try:
        yield _latency(store, LATENCY_READS if sample else FEW_READS)
    except SessionStoreUnavailable as exc:
        hint = gettext(
            "Check that the server runs, and its address, password and TLS (rediss://) in CACHES (REDIS_URL)"
        )
        yield Finding(Level.ERROR, "reachable", str(exc), gettext(GRANT) if _is_refused(exc) else hint)
        if _is_refused(exc):
            yield from _unless_refused("rights", _rights, store)
        return
    if not store.has_index:
        kind = type(caches[conf.cache]).__name__
        message = gettext("%s binds, reads and deletes sessions; it cannot list or move them and keeps no history")
        hint = gettext("Use sessions_sticky.cache_config(url) to store sessions in Redis")
        yield Finding(Level.NOTE, "cache", message % kind, hint)
        return
    store = store.operators
    yield from _unless_refused("server", _server, store)
    yield from _unless_refused("clock", _clock, store)
    if not conf.history_length:
        message = gettext("HISTORY_LENGTH is 0: the reasons of moves are not recorded")
        yield Finding(Level.NOTE, "history", message)
    if not conf.index:
        message = gettext("INDEX is False: sessions cannot be listed, counted or moved together")
        yield Finding(Level.NOTE, "index", message)
    if sample:
        yield from _unless_refused("sessions", _sample, store)
        yield from _unless_refused("rights", _rights, store)


def _unless_refused(subject: str, check: Callable[..., Iterable[Finding]], *args: Any) -> Iterator[Finding]:
    try:
        yield from check(*args)
    except SessionStoreUnavailable as exc:
        message = gettext("not checked: this server does not permit or support it (%s)") % exc
        yield Finding(Level.NOTE, subject, message)


def _latency(store: Store, reads: int) -> Finding:
    taken_ms = []
    for _ in range(reads):
        began = time.perf_counter()
        store.send(store.read(keys.session("doctor")))
        taken_ms.append((time.perf_counter() - began) * 1000)
    median = statistics.median(taken_ms)
    message = gettext("the store answers in %(ms)s ms (median of %(number)d reads)")
    message %= {"ms": format_number(median, 2), "number": reads}
    level = Level.WARNING if median > MAX_LATENCY_MS else None
    return make_finding(level, "latency", message, gettext("Every chat waits for the store: find the cause"))


def _rights(store: Store) -> Iterator[Finding]:
    from sessions_sticky.stores import rights  # loads redis-py

    try:
        missing = rights.missing(store, caches[conf.cache])
    except SessionStoreUnavailable as exc:
        if not _is_refused(exc):
            raise
        yield Finding(Level.ERROR, "rights", str(exc), gettext(GRANT))  # no right to run scripts, so no check
        return
    level = Level.ERROR if missing else None
    message = gettext("the Redis user lacks %s") % " ".join(missing)
    message = message if missing else gettext("the Redis user has all rights that are needed")
    yield make_finding(level, "rights", message, gettext(GRANT))


def _server(store: Store) -> Iterator[Finding]:
    infos = [server_info.read_info(reply) for reply in store.send(AllPrimaries(Command(("INFO",))))]
    yield from server_info.most_severe(list(server_info.judge(info)) for info in infos)
    yield from _unless_refused("persistence", _persistence, store, infos)


def _persistence(store: Store, infos: list[dict[str, str]]) -> list[Finding]:
    found = [server_info.persistence(info) for info in infos]
    if None in found:
        replies = store.send(AllPrimaries(Command(("CONFIG", "GET", "save"))))
        saves = [list(reply.values()) if isinstance(reply, dict) else reply[1:] for reply in replies]
        found = [one or server_info.snapshots(save[0].decode()) for one, save in zip(found, saves, strict=True)]
    return server_info.most_severe([[one] for one in found if one])


def _clock(store: Store) -> Iterator[Finding]:
    before = time.time()
    clocks = store.send(AllPrimaries(Command(("TIME",))))
    now = (before + time.time()) / 2
    skew = max(abs(int(seconds) + int(micros) / 1_000_000 - now) for seconds, micros in clocks)
    level = Level.WARNING if skew > MAX_SKEW_SECONDS else None
    message = gettext("this machine's clock and the server's are %s s apart") % format_number(skew, 1)
    yield make_finding(level, "clock", message, gettext("Synchronize both with NTP"))


def _sample(store: Store) -> Iterator[Finding]:
    members = _sampled(store)
    now, *found = store.send(index.read_sessions(members)) if members else [b"0"]
    rows = [row for row in zip(members, found[::2], found[1::2], strict=True) if row[1] is not None]
    sessions = [Row(session, raw, left_ms) for member, raw, left_ms in rows if (session := _session(member, raw))]
    writers = gettext("Another program writes them in the wrong format; see docs/interchange.md")
    unreadable = gettext("%(bad)s of %(number)s sampled sessions are unreadable")
    yield _share("values", len(rows) - len(sessions), len(rows), unreadable, writers)
    immortal = gettext("%(bad)s of %(number)s sampled sessions have no expiry")
    yield _share("expiry", sum(row[2] == -1 for row in rows), len(rows), immortal, writers)
    if conf.index:
        expiring = [row for row in sessions if row.left_ms > 0]
        late = IndexReader(store, conf.ttl_seconds).out_of_date(expiring, float(now))
        drifted = gettext("%(bad)s of %(number)s sampled sessions are missing or outdated in the index")
        hint = gettext("Run manage.py sessions reindex, and repeat it after other programs have written sessions")
        yield _share("index", len(late), len(expiring), drifted, hint)


def _share(subject: str, bad: int, number: int, message: str, hint: str) -> Finding:
    message %= {"bad": format_number(bad), "number": format_number(number)}
    return make_finding(Level.WARNING if bad else None, subject, message, hint)


def _sampled(store: Store) -> list[bytes]:
    """Return the ids of some sessions."""
    names: set[bytes] = set()
    cursor = b"0"
    for _ in range(SAMPLE_STEPS):
        cursor, more = store.send(index.scan(cursor, f"{keys.session_prefix()}*", SAMPLE_SIZE))
        names.update(more)
        if cursor == b"0" or len(names) >= SAMPLE_SIZE:
            break
    return [name.removeprefix(keys.session_prefix().encode()) for name in names][:SAMPLE_SIZE]


def _is_refused(exc: SessionStoreUnavailable) -> bool:
    """Return whether the server answered that the user lacks a right."""
    return type(exc.__cause__).__name__ == "NoPermissionError"


def _session(member: bytes, raw: bytes) -> Session | None:
    """Decode a session without logging unreadable values."""
    try:
        return session_of(member.decode(errors="replace"), raw)
    except InvalidSession:
        return None
