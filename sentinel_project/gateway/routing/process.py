"""What this process knows of the providers: their health, its own load on them, and their prompt caches.

Of these only the health is shared with other processes, by `health_sync`.
"""

from __future__ import annotations

from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.providers.current import providers
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.load import Load
from sentinel_project.gateway.routing.warmth import Warmth

health = Health(settings.SENTINEL_COOLDOWN_SECONDS, providers)
load = Load()
warmth = Warmth()


def forget(name: str) -> None:
    """Forget everything known about a provider whose endpoint has changed."""
    health.forget(name)
    load.paces.pop(name, None)
