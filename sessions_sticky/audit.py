"""Who changed what through the admin API or Django admin: Django's `LogEntry`, which its admin shows.

The texts are in the language of the user who made the change, as Django records names of objects.
"""

from __future__ import annotations

import logging
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.db import router, transaction
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from sessions_sticky.jobs.job import Job
from sessions_sticky.models import Session as SessionModel
from sessions_sticky.session import Session

if TYPE_CHECKING:
    from rest_framework.request import Request

logger = logging.getLogger("sessions_sticky")

MAX_REPR_LENGTH = 200
"""Maximum length of `LogEntry.object_repr`, in characters."""


class Flag(IntEnum):
    """What happened, with the numbers of `LogEntry.action_flag`."""

    ADDITION = 1
    CHANGE = 2
    DELETION = 3


def actor(request: HttpRequest | Request) -> str:
    """Return the name of the request's user, as the author of changes: `USERNAME_FIELD` may be a UUID or a number."""
    return str(request.user.get_username())


def record(
    request: HttpRequest | Request, flag: Flag, object_id: str | None, message: str, *, object_repr: str = ""
) -> None:
    """Add a `LogEntry` of the request's user, if `django.contrib.admin` is installed.

    `object_id` is a conversation id, the key of a job, or None for anything else; `object_repr` describes the object,
    by default it is its id. A failure is logged, not raised: the change is done.
    """
    if not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import LogEntry  # models can only be imported if their app is installed

    object_repr = object_repr or object_id or ""
    try:
        # With ATOMIC_REQUESTS a failure must not roll back anything else.
        with transaction.atomic(router.db_for_write(LogEntry)):
            LogEntry.objects.create(
                user_id=request.user.pk,  # type: ignore[misc]  # the user is authenticated
                content_type=ContentType.objects.get_for_model(SessionModel),
                object_id=object_id,
                object_repr=object_repr[:MAX_REPR_LENGTH],
                action_flag=flag,
                change_message=message,
            )
    except Exception as exc:  # a database error, or a user without a row
        logger.error("not recorded, %s %r by %r: %r: %r", flag.name, object_repr, str(request.user), message, str(exc))


def record_touch(request: HttpRequest | Request, conversation_id: str) -> None:
    """Record a reset of the idle time."""
    record(request, Flag.CHANGE, conversation_id, _("Idle time reset"))


def record_move(request: HttpRequest | Request, before: Session, after: Session, reason: str) -> None:
    """Record a move."""
    text = _("Moved from %(from_provider)s, %(from_model)s to %(provider)s, %(model)s: %(reason)s") % {
        "from_provider": before.provider,
        "from_model": before.model,
        "provider": after.provider,
        "model": after.model,
        "reason": reason,
    }
    record(request, Flag.CHANGE, before.id, text)


def record_delete(request: HttpRequest | Request, conversation_id: str) -> None:
    """Record a deletion."""
    record(request, Flag.DELETION, conversation_id, _("Deleted"))


def record_start(request: HttpRequest | Request, job: Job) -> None:
    """Record the start of a bulk operation, which may not be counted yet. The entry links to its page."""
    number = job.expected
    text = ngettext("Started, %(number)d session expected", "Started, %(number)d sessions expected", number)
    _record_job(request, job, text % {"number": number} if number else _("Started"))


def record_progress(request: HttpRequest | Request, job: Job, action: Literal["stop", "resume"]) -> None:
    """Record that a bulk operation was stopped or resumed, and its progress. The entry links to its page."""
    if action == "stop":
        text = _("Stopped, %(done)d of %(number)d sessions done")
    else:
        text = _("Resumed, %(done)d of %(number)d sessions done")
    _record_job(request, job, text % {"done": job.done, "number": job.expected})


def _record_job(request: HttpRequest | Request, job: Job, change: str) -> None:
    description = _describe(job)
    message = _("%(change)s: %(description)s (operation %(key)s)")
    message %= {"change": change, "description": description, "key": job.key}
    flag = Flag.DELETION if job.kind == "delete" else Flag.CHANGE
    record(request, flag, job.key, message, object_repr=description)


def _describe(job: Job) -> str:
    """Describe an operation in words, without its conditions."""
    names = ((_("provider"), job.provider), (_("model"), job.model), (_("owner"), job.owner))
    if named := ", ".join(f"{name} {value!r}" for name, value in names if value is not None):
        which = _("sessions of %s") % named
    else:
        which = _("all sessions") if job.everything else _("selected sessions")
    if job.kind == "delete":
        return _("delete %s") % which
    if job.is_back:
        return _("move %(sessions)s back: %(reason)s") % {"sessions": which, "reason": job.reason}
    model = "" if job.to_model is None else f", {_('model')} {job.to_model!r}"
    text = _("move %(sessions)s to %(target)s: %(reason)s")
    return text % {"sessions": which, "target": f"{job.to_provider!r}{model}", "reason": job.reason}
