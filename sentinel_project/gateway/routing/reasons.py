"""Why a conversation moves, or spills over to another provider.

docs/reference/failover.md says what each reason means, docs/architecture.md which functions decide it.
"""

from __future__ import annotations

import enum

FIRST_FAILED = "first provider failed"
MODEL_GONE = "model not configured"
PROVIDER_GONE = "provider not configured for the model"
LOST = "provider unreachable for 90 s"
CACHE_EXPIRED = "prompt cache expired"
CAME_BACK_COLD = "provider came back cold"


class Spill(enum.StrEnum):
    """Why another provider than the bound one answers, while the binding stays."""

    FAILED = "provider failed"
    COOLING = "provider is cooling down"
    FULL = "provider is full"
    SLOW = "provider is slow"
    LOAD = "load is spread"
    WARM = "prompt cache is warm elsewhere"
    API = "provider does not support the API"
    PINNED = "objects are at another provider"
    NOT_MOVED = "move failed"

    @property
    def is_failure(self) -> bool:
        """Whether the bound provider failed, so that its prompt caches may be gone."""
        return self in (Spill.FAILED, Spill.COOLING)
