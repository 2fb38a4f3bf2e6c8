"""Evaluate Redis's INFO: findings with suggested fixes; performs no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from django.template.defaultfilters import filesizeformat
from django.utils.formats import number_format
from django.utils.translation import gettext

MAX_MEMORY_USED = 0.8
FULL_MEMORY = 0.95
"""Without eviction: the next large write may be refused."""
OLDEST = {"Redis": 7, "Valkey": 8}
"""The first supported major versions."""


class Level(StrEnum):
    """Severity of a finding; a note is not a fault."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


SEVERITY = list(Level)


class Finding(NamedTuple):
    """A finding about one subject; `hint` suggests a fix, or is empty."""

    level: Level
    subject: str
    message: str
    hint: str = ""


def make_finding(level: Level | None, subject: str, message: str, hint: str) -> Finding:
    """Return a finding; without a level it is OK and has no hint."""
    return Finding(level, subject, message, hint) if level else Finding(Level.OK, subject, message)


def format_number(number: float, decimals: int = 0) -> str:
    """Return a number formatted for the active language."""
    return number_format(round(number, decimals), decimals, force_grouping=True)


def format_percent(ratio: float, decimals: int = 0) -> str:
    """Return a part of 1 in percent, as the active language writes it."""
    return gettext("%s%%") % format_number(100 * ratio, decimals)


def read_info(reply: bytes) -> dict[str, str]:
    """Parse the reply to INFO."""
    lines = [line.partition(":") for line in reply.decode(errors="replace").splitlines()]
    return {name: value for name, colon, value in lines if colon}


def most_severe(found: Iterable[Sequence[Finding]]) -> list[Finding]:
    """Return the most severe finding on each subject; all servers' findings have the same order."""
    return [max(same, key=lambda finding: SEVERITY.index(finding.level)) for same in zip(*found, strict=True)]


def judge(info: dict[str, str]) -> Iterator[Finding]:
    """Evaluate INFO, except for persistence."""
    yield _version(info)
    yield _eviction(info)
    yield _memory(info)
    yield _role(info)


def _version(info: dict[str, str]) -> Finding:
    kind = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get(f"{kind.lower()}_version", "")
    major = version.partition(".")[0]
    if major.isdigit() and int(major) >= OLDEST[kind]:
        return Finding(Level.OK, "version", f"{kind} {version}")
    message = gettext("%(name)s %(version)s is not supported") % {"name": kind, "version": version}
    return Finding(Level.ERROR, "version", message, gettext("Use Redis 7, Valkey 8 or newer"))


def _eviction(info: dict[str, str]) -> Finding:
    policy = info.get("maxmemory_policy", "not known")
    evicted = int(info.get("evicted_keys", 0))
    if evicted:
        message = gettext("%s keys were evicted since the server started") % format_number(evicted)
        return Finding(Level.WARNING, "eviction", message, gettext("Raise maxmemory; set maxmemory-policy noeviction"))
    if policy.startswith(("volatile-", "allkeys-")):
        message = gettext("maxmemory-policy %s silently evicts live sessions when memory is full") % policy
        return Finding(Level.WARNING, "eviction", message, gettext("Set maxmemory-policy noeviction"))
    return Finding(Level.OK, "eviction", f"maxmemory-policy {policy}")


def memory_ratio(info: dict[str, str]) -> float | None:
    """Return the used part of maxmemory; None without a limit."""
    limit = int(info.get("maxmemory", 0))
    return int(info.get("used_memory", 0)) / limit if limit else None


def _memory(info: dict[str, str]) -> Finding:
    ratio = memory_ratio(info)
    if ratio is None:
        used = filesizeformat(int(info.get("used_memory", 0)))
        return Finding(Level.OK, "memory", gettext("%s is used; maxmemory is not set") % used)
    percent, hint = format_percent(ratio, 1), gettext("Raise maxmemory, or delete idle sessions before Redis is full")
    if info.get("maxmemory_policy") == "noeviction" and ratio > 1:
        message = gettext("Redis is full: %s of maxmemory is used; new sessions and bulk changes are refused")
        return Finding(Level.ERROR, "memory", message % percent, gettext("Raise maxmemory"))
    if info.get("maxmemory_policy") == "noeviction" and ratio >= FULL_MEMORY:
        message = gettext("Redis is almost full: %s of maxmemory is used; once it is full, new sessions are refused")
        return Finding(Level.ERROR, "memory", message % percent, hint)
    level = Level.WARNING if ratio > MAX_MEMORY_USED else None
    return make_finding(level, "memory", gettext("%s of maxmemory is used") % percent, hint)


def _role(info: dict[str, str]) -> Finding:
    replicas = int(info.get("connected_slaves", 0))
    if info.get("role") == "slave":
        message = gettext("the server is a replica and does not accept writes")
        return Finding(Level.ERROR, "role", message, gettext("Use the address of the primary"))
    if replicas and "min_slaves_good_slaves" not in info:  # present only if min-replicas-to-write is set
        message = gettext("primary with %d replicas: a failover may lose confirmed writes") % replicas
        return Finding(Level.NOTE, "role", message, gettext("min-replicas-to-write 1 reduces the loss"))
    return Finding(Level.OK, "role", gettext("primary"))


def persistence(info: dict[str, str]) -> Finding | None:
    """Evaluate persistence; return None if INFO does not contain it: then use `snapshots`."""
    failed = [name for name in ("rdb_last_bgsave_status", "aof_last_write_status") if info.get(name) == "err"]
    if failed:
        message = gettext("the last save failed (%s): the server may refuse writes") % ", ".join(failed)
        return Finding(Level.ERROR, "persistence", message, gettext("See the server's log; often the disk is full"))
    if info.get("aof_enabled") == "1":
        return Finding(Level.OK, "persistence", gettext("append-only file"))
    return None


def snapshots(save: str) -> Finding:
    """Evaluate the server's configuration `save`; empty means no snapshots."""
    if save:
        return Finding(Level.OK, "persistence", gettext("snapshots: a crash loses changes after the last one"))
    message = gettext("none: a restart loses all sessions except those that gateway processes remember")
    return Finding(Level.WARNING, "persistence", message, gettext("Set appendonly yes"))
