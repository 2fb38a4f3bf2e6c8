"""The WSGI application, for the admin; WSGI servers hold streams back, so chats belong on ASGI."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentinel_project.settings")

application = get_wsgi_application()
