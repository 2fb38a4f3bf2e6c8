"""The id of the request that this task serves, for log lines; imported while Django configures logging."""

from __future__ import annotations

import logging
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="")


class RequestIdFilter(logging.Filter):
    """Gives each record `in_request`, for the format of its handler: empty outside requests."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record."""
        current = request_id.get()
        record.in_request = f" [request {current}]" if current else ""
        return True
