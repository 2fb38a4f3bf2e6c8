"""The ASGI application: Django, with a fast path for everything below /v1/."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentinel_project.settings")
django.setup(set_prefix=False)

from sentinel_project.gateway.handler import GatewayHandler  # noqa: E402

application = GatewayHandler()
