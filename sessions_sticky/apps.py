"""The Django app."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core.signals import request_started
from django.utils.translation import gettext_lazy as _

WATCH_JOBS = "sessions_sticky.jobs"
"""The `dispatch_uid` of the receiver."""


class SessionsStickyConfig(AppConfig):
    """Registers the system checks, and has processes that serve requests adopt jobs whose worker is gone."""

    name = "sessions_sticky"
    verbose_name = _("Sticky sessions")

    def ready(self) -> None:
        """Register."""
        from sessions_sticky import checks  # noqa: F401

        request_started.connect(watch_jobs, dispatch_uid=WATCH_JOBS)


def watch_jobs(**kwargs: Any) -> None:
    """Start the watcher at the first request: threads do not survive a fork, and commands need none."""
    from sessions_sticky.jobs.service import jobs

    request_started.disconnect(dispatch_uid=WATCH_JOBS)
    jobs.watch()
