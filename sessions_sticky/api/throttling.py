"""How often one user may call."""

from __future__ import annotations

import logging

from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from sessions_sticky.conf import conf

logger = logging.getLogger("sessions_sticky")


class SessionThrottle(SimpleRateThrottle):
    """Limit each user to `SESSIONS_STICKY["API_THROTTLE_RATE"]`, counted in the default cache.

    While that cache is down nobody is limited: an operator must get through most of all then.
    """

    def get_rate(self) -> str | None:
        """Return the configured rate; None is without limit."""
        return conf.api_throttle_rate

    def get_cache_key(self, request: Request, view: APIView) -> str:
        """Return where a user's calls are counted; permissions have let in only users by now."""
        return f"sentinel:throttle:{request.user.pk}"

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Tell whether the user is within the rate, and count the call."""
        try:
            return super().allow_request(request, view)
        except Exception as exc:  # each cache backend has errors of its own
            logger.warning("admin API not throttled: %s", exc)
            return True
