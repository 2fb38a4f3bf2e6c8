"""The rate limit of a user."""

from __future__ import annotations

import hashlib
import logging
import time

from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from sessions_sticky import audit, keys
from sessions_sticky.conf import conf

logger = logging.getLogger("sessions_sticky")


class SessionThrottle(SimpleRateThrottle):
    """Limit each user to `SESSIONS_STICKY["API_THROTTLE_RATE"]`, counted in the default cache.

    Periods follow the clock, such as minutes of UTC for a rate per minute. Only a counter is stored: DRF's own list of
    times costs more than the calls once there are hundreds. While the cache is down calls are not limited, because
    operators need the API most then.
    """

    _wait: float | None = None

    def get_rate(self) -> str | None:
        """Return the configured rate; None for no limit."""
        return conf.api_throttle_rate

    def get_cache_key(self, request: Request, view: APIView) -> str:
        """Return the key of a user's counter; permissions were checked before, so there is a user.

        Users without a row in the database have a name, but may have no primary key.
        """
        user: object = request.user.pk
        if user is None:
            user = hashlib.sha256(audit.actor(request).encode(errors="replace")).hexdigest()
        return keys.prefixed(f"throttle:{user}")

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Count the call; return whether the user is within the rate."""
        most, period = self.parse_rate(self.rate)
        if most is None or period is None:
            return True
        try:
            return self._count(self.get_cache_key(request, view), most, period)
        except Exception as exc:  # cache backends raise different errors
            logger.warning("admin API not throttled: %s", exc)
            return True

    def wait(self) -> float | None:
        """Return the seconds until the next period."""
        return self._wait

    def _count(self, key: str, most: int, period: int) -> bool:
        now = time.time()
        self._wait = period - now % period
        key = f"{key}:{int(now // period)}"
        try:
            return self.cache.incr(key) <= most
        except ValueError:  # the first call of the period
            return self.cache.add(key, 1, period) or self.cache.incr(key) <= most
