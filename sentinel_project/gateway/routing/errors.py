"""Errors for requests that no provider can serve."""

from __future__ import annotations

import math
from collections.abc import Iterable

from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.routing import process


def unknown_model(model: str) -> ApiError:
    """Return the error for a model that no provider is configured for."""
    return ApiError(404, f"No provider serves the model {model!r} with this API", param="model", code="model_not_found")


def unavailable(model: str, serving: Iterable[Provider] = (), *, is_pinned: bool = False) -> ApiError:
    """Return the error for a request that no provider can serve now, with the shortest time until one of `serving` may.

    `is_pinned`: only certain providers could serve it. Otherwise it is a limit if each of them asked to wait.
    """
    waits = (left for each in serving if (left := process.health.seconds_left(each.name, model)))
    wait = min(waits, default=None)
    what = f"serves the model {model!r}" if model else "that could answer is available"
    message = f"No provider {what} at the moment"
    retry_after = max(1, math.ceil(settings.SENTINEL_COOLDOWN_SECONDS if wait is None else wait))
    if wait is None or is_pinned:
        return ApiError(503, message, code="no_provider", retry_after=retry_after)
    message += f": all are rate-limited, the first of them for {wait:.0f} s"
    return ApiError(429, message, code="rate_limit_exceeded", retry_after=retry_after)
