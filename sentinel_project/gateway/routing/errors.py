"""Errors for requests that no provider can serve."""

from __future__ import annotations

import math

from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.errors import ApiError


def unknown_model(model: str) -> ApiError:
    """Return the error for a model that no provider is configured for."""
    return ApiError(404, f"No provider serves the model {model!r} with this API", param="model", code="model_not_found")


def unreachable(model: str, seconds_left: list[float]) -> ApiError:
    """Return the error for a request that only certain providers can serve, none of which can now."""
    wait = _shortest(seconds_left) or settings.SENTINEL_COOLDOWN_SECONDS
    what = f"serves the model {model!r}" if model else "that could answer is available"
    message = f"No provider {what} at the moment"
    headers = {"Retry-After": str(max(1, math.ceil(wait)))}
    return ApiError(503, message, type="service_unavailable", code="no_provider", headers=headers)


def unavailable(model: str, seconds_left: list[float]) -> ApiError:
    """Return the error for a model that no provider can serve now, with the shortest time until one may."""
    message = f"No provider serves the model {model!r} at the moment"
    wait = _shortest(seconds_left)
    if wait is None:
        headers = {"Retry-After": str(settings.SENTINEL_COOLDOWN_SECONDS or 1)}
        return ApiError(503, message, type="service_unavailable", code="no_provider", headers=headers)
    headers = {"Retry-After": str(max(1, math.ceil(wait)))}
    message += f": all are rate-limited, the first of them for {wait:.0f} s"
    return ApiError(429, message, type="rate_limit_error", code="rate_limit_exceeded", headers=headers)


def _shortest(seconds_left: list[float]) -> float | None:
    return min((seconds for seconds in seconds_left if seconds > 0), default=None)
