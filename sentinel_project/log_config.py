"""Logging of the gateway: one line of JSON a request to standard output, everything else to standard error."""

from __future__ import annotations

import logging
from typing import Any

# No format shows them, and each costs every line a system call, or a walk over the stack.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging._srcfile = None


def log_config(*, debug: bool) -> dict[str, Any]:
    """Return Django's setting LOGGING."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": "sentinel_project.gateway.request_id.RequestIdFilter"}},
        "formatters": {
            "line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s%(in_request)s"},
            "json": {"format": "%(message)s"},
        },
        "handlers": {
            "console": {
                "class": "sentinel_project.log_handler.LineHandler",
                "formatter": "line",
                "filters": ["request_id"],
            },
            "requests": {
                "class": "sentinel_project.log_handler.LineHandler",
                "formatter": "json",
                "stream": "ext://sys.stdout",
            },
        },
        "loggers": {
            "sentinel_project.requests": {"handlers": ["requests"], "level": "INFO", "propagate": False},
            "sessions_sticky": {"handlers": ["console"], "level": "INFO"},
            "sentinel_project": {"handlers": ["console"], "level": "INFO"},
            # Django's own handler shows errors while DEBUG is on, and otherwise nothing at all.
            "django.request": {"handlers": [] if debug else ["console"], "level": "ERROR"},
        },
    }
