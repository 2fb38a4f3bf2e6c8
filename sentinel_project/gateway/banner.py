"""The banner of the overview: whether customers are affected, and why."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from sentinel_project.gateway.provider_status import ProviderStatus, State, format_time
from sentinel_project.gateway.recent import recent
from sessions_sticky import MinuteTurns, SessionNotSupported, SessionStoreUnavailable, sessions
from sessions_sticky.queries.server_info import Level
from sessions_sticky.stores.usage import MAX_MINUTES
from sessions_sticky.turns import FAILED, REBOUND, SPILLED, UNANSWERED

MINUTES = 5
AWAY = (SPILLED, REBOUND)


class Banner(NamedTuple):
    """The headline and further lines; `level` is that of a finding."""

    level: Level
    headline: str
    lines: list[str]


def banner(statuses: list[ProviderStatus]) -> Banner:
    """Return the banner for the state of the providers."""
    now = datetime.now(UTC)
    failing = [each for each in statuses if each.failing_since is not None]
    minutes = max([MINUTES, *(int((now - (each.failing_since or now)).total_seconds() // 60) + 2 for each in failing)])
    try:
        turns = sessions.activity(min(minutes, MAX_MINUTES)).turns
    except (SessionNotSupported, SessionStoreUnavailable):
        answered, failed = recent.totals()
        lines = [*_limits(statuses, []), _("The session store is unavailable: these are the chats of one worker.")]
        return _banner(answered, failed, lines, _refused(statuses))
    latest = [each for each in turns if each.began_at > now - timedelta(minutes=MINUTES)]
    failed = sum(each.turns for each in latest if each.outcome == UNANSWERED)
    answered = sum(each.turns for each in latest if each.outcome not in (UNANSWERED, FAILED))
    lines, refused = _limits(statuses, turns), _refused(statuses)
    if any(each.state is State.UNKNOWN for each in statuses):
        lines.append(_("The state of the providers is unknown: it cannot be read from the cache."))
    if not lines and not refused:
        well = ngettext("The provider is healthy.", "All %(number)d providers are healthy.", len(statuses))
        return _banner(answered, failed, [well % {"number": len(statuses)}], level=Level.OK)
    return _banner(answered, failed, lines, refused)


def _limits(statuses: list[ProviderStatus], turns: list[MinuteTurns]) -> list[str]:
    """Return what is not served, and by which providers, one sentence or more for each."""
    models = {model for each in statuses for model in each.provider.models}
    unserved = models.difference(*(each.served_models for each in statuses))
    lines = [_("No provider serves these models at the moment: %s.") % ", ".join(sorted(unserved))] if unserved else []
    lines += [_line(each, turns) for each in statuses if each.failing_since is not None]
    if limited := [each for each in statuses if each.state in (State.COOLING, State.SLOW)]:
        slow = _("slow")
        names = ", ".join(f"{each.provider.name} ({each.error or slow})" for each in limited)
        text = _("Cooling down or slow: %s. Other providers of the same models serve some of their requests.")
        lines.append(text % names)
    return lines


def _banner(answered: int, failed: int, lines: list[str], refused: str = "", *, level: Level = Level.WARNING) -> Banner:
    """Return the banner. `refused` is its headline as long as no chat has failed."""
    total = answered + failed
    numbers = {"failed": failed, "total": total, "minutes": MINUTES}
    if failed:
        headline = _("Customers are affected: %(failed)d of %(total)d chats failed in the last %(minutes)d minutes.")
        return Banner(Level.ERROR, headline % numbers, [refused, *lines] if refused else lines)
    if refused:
        return Banner(level, refused, lines)
    if total:
        headline = _("Customers are not affected: 0 of %(total)d chats failed in the last %(minutes)d minutes.")
    else:
        headline = _("Customers are not affected: no chats in the last %(minutes)d minutes.")
    return Banner(level, headline % numbers, lines)


def _refused(statuses: list[ProviderStatus]) -> str:
    """Return that new conversations are refused, of all models or of those whose last providers are drained."""
    if not any(each.takes_new for each in statuses):
        if all(each.is_drained for each in statuses):
            return _("All providers are drained: new conversations are refused with 503.")
        return _("All providers are drained or have weight 0: new conversations are refused with 503.")
    served = {model for each in statuses if each.takes_new for model in each.provider.models}
    refused = {model for each in statuses if each.is_drained for model in each.provider.models} - served
    text = _("New conversations of these models are refused with 503, because all their providers are drained: %s.")
    return text % ", ".join(sorted(refused)) if refused else ""


def failing_since(status: ProviderStatus, since: datetime) -> str:
    """Return since when a provider has been failing, and its last error."""
    facts = {"since": f"{format_time(since)} UTC", "error": status.error or _("unknown error")}
    return _("%(provider)s has been failing since %(since)s (%(error)s).") % {"provider": status.provider.name, **facts}


def _line(status: ProviderStatus, turns: list[MinuteTurns]) -> str:
    """Return since when a provider has been failing, and which providers have served its conversations."""
    since = status.failing_since
    assert since is not None  # noqa: S101 - only of failing providers
    parts = [failing_since(status, since)]
    own = [each for each in turns if each.bound_provider == status.provider.name]
    own = [each for each in own if each.began_at > since - timedelta(minutes=1)]
    served = Counter[str]()
    for each in own:
        if each.outcome in AWAY:
            served[each.provider] += each.turns
    if served:
        number = served.total()
        text = ngettext("%(number)d chat served by %(others)s,", "%(number)d chats served by %(others)s,", number)
        parts.append(text % {"number": number, "others": ", ".join(sorted(served))})
        failed = sum(each.turns for each in own if each.outcome == UNANSWERED)
        parts.append(ngettext("%d failed.", "%d failed.", failed) % failed)
    if status.state is State.LOST and not status.is_held:
        parts.append(_("Its conversations move permanently with their next chat."))
    return " ".join(parts)
