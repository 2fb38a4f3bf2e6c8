"""The project's settings, with a mistake that a system check finds."""

from sentinel_project.settings import *  # noqa: F403

SESSIONS_STICKY = {"INDEKS": True}
