"""The page of a bulk operation: progress, and buttons to stop and resume it."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, NamedTuple

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sessions_sticky import audit
from sessions_sticky.admin.base import PageAdmin, page
from sessions_sticky.admin.filters import condition_fields, fields_of
from sessions_sticky.admin.formatting import duration
from sessions_sticky.jobs.job import PERMISSION, Job, Plan, State
from sessions_sticky.jobs.runner import LEASE_SECONDS
from sessions_sticky.jobs.service import WATCH_SECONDS, jobs
from sessions_sticky.queries.server_info import format_percent

RUNNING_SECONDS, RESTING_SECONDS = 1, 5
"""Interval of progress updates."""
SILENT_SECONDS = 3
"""How long a worker may be silent: it reports several times a second."""
SMOOTHING = 0.4
"""The weight of the latest measurement in the displayed rate."""
LEAST_RATE = 0.01
"""Minimum rate, in sessions per second, for an estimate of the remaining time."""

STATES: dict[State, str | Promise] = {
    "running": gettext_lazy("Running"),
    "stopped": gettext_lazy("Stopped"),
    "done": gettext_lazy("Done"),
    "failed": gettext_lazy("Failed"),
}


class Mark(NamedTuple):
    """Progress and rate at the last read of an operation; the page sends it back."""

    done: int
    at: float
    rate: float

    @classmethod
    def read(cls, text: str) -> Mark | None:
        """Parse the result of `str`; return None for other input."""
        try:
            done, at, rate = text.split("_")
            mark = cls(int(done), float(at), float(rate))
        except ValueError:
            return None
        return mark if all(map(math.isfinite, mark)) else None

    def __str__(self) -> str:
        return f"{self.done}_{self.at:.3f}_{self.rate:.3f}"


def start(admin: PageAdmin, request: HttpRequest, plan: Plan) -> HttpResponse:
    """Start an operation and redirect to its page."""
    job = jobs.start(plan, actor=audit.actor(request))
    audit.record_start(request, job)
    return HttpResponseRedirect(admin.back(request, admin.url("operation", job.key)))


@page("view")
def show(admin: PageAdmin, request: HttpRequest, key: str) -> HttpResponse:
    """Show the progress. With `?fragment` return only the figures."""
    job = jobs.get(key)
    render = partial(admin.render, request, "operation.html", fragment="operation_state.html", section="operations")
    if job is None:
        return render({"title": _("No such operation")}, status=404)
    may_act = admin.allows(request, PERMISSION[job.kind])
    context = {**job_context(job), **_speed(job, request.GET.get("mark", "")), "may_act": may_act}
    if may_act and (undo := job.undo):
        context["undo"] = fields_of(undo.filters)
    return render(context)


@page("view", "POST", instead="../")
def stop(admin: PageAdmin, request: HttpRequest, key: str) -> HttpResponse:
    """Stop the operation unless it is finished."""
    return _act(admin, request, key, "stop")


@page("view", "POST", instead="../")
def resume(admin: PageAdmin, request: HttpRequest, key: str) -> HttpResponse:
    """Resume a stopped or failed operation."""
    return _act(admin, request, key, "resume")


def job_context(job: Job) -> dict[str, Any]:
    """Return the template context of an operation."""
    return {
        "title": _title(job),
        "job": job,
        "state": STATES[job.state],
        "percent": format_percent(1 if job.state == "done" else min(99, 100 * job.done // max(job.expected, 1)) / 100),
        "most": max(job.expected, job.done),
        "shown": max(job.expected, job.done, 1) if job.state == "done" else job.done,
        "started_at": datetime.fromtimestamp(job.started_at, UTC),
        "updated_at": datetime.fromtimestamp(job.updated_at, UTC),
        "ended_at": None if job.ended_at is None else datetime.fromtimestamp(job.ended_at, UTC),
        "lasted": duration((job.ended_at or int(time.time())) - job.started_at),
        "left": max(job.expected - job.done, 0),
        "conditions": condition_fields(job.filters),
    }


def recent_operations(limit: int | None = None) -> list[dict[str, Any]]:
    """Return the contexts of the recent operations; that of a move back has the operation that it undoes, if recent."""
    recent = jobs.recent()
    by_key: dict[str | None, Job] = {job.key: job for job in recent}
    return [
        {**job_context(job), "undone": by_key.get(job.operation) if job.is_back else None} for job in recent[:limit]
    ]


def _title(job: Job) -> str:
    if job.kind == "delete":
        return _("Delete sessions")
    return _("Move sessions back") if job.is_back else _("Move sessions")


def _speed(job: Job, mark: str) -> dict[str, Any]:
    """Return the rate since the last read, in sessions per second, and the remaining time in words."""
    last, now, rate = Mark.read(mark), time.time(), 0.0
    seconds = RUNNING_SECONDS if job.state == "running" else RESTING_SECONDS
    silent = int(now) - job.updated_at
    if job.state == "running" and last and now > last.at and job.done >= last.done:
        rate = (job.done - last.done) / (now - last.at)
        rate = SMOOTHING * rate + (1 - SMOOTHING) * last.rate if last.rate else rate
    if rate < LEAST_RATE:
        rate = 0.0
    left = (job.expected - job.done) / rate if rate else 0
    return {
        "mark": str(Mark(job.done, now, rate)),
        "seconds": seconds,
        "silent_seconds": silent if job.state == "running" and silent >= SILENT_SECONDS else 0,
        "adopted_in": math.ceil(LEASE_SECONDS + WATCH_SECONDS),
        "rate": rate,
        "time_left": duration(round(max(left, 1))) if rate else "",
    }


def _act(admin: PageAdmin, request: HttpRequest, key: str, action: Literal["stop", "resume"]) -> HttpResponse:
    job = jobs.get(key)
    if job and not admin.allows(request, PERMISSION[job.kind]):
        raise PermissionDenied
    changed = jobs.stop(key) if action == "stop" else jobs.resume(key)
    if changed and changed.changed:
        audit.record_progress(request, changed.job, action)
    return HttpResponseRedirect(admin.url("operation", key))
