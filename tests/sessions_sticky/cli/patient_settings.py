"""The project's settings for runs that are not about timeouts: a busy machine may take its time."""

from sentinel_project.settings import *  # noqa: F403
from sentinel_project.settings import CACHES

CACHES["default"]["OPTIONS"] |= {"SOCKET_TIMEOUT": 10, "SOCKET_CONNECT_TIMEOUT": 10}
