"""The gateway's settings without the limit on an operator's calls, which a bench would meet at once."""

from sentinel_project.settings import *  # noqa: F403
from sentinel_project.settings import SESSIONS_STICKY

SESSIONS_STICKY = {**SESSIONS_STICKY, "PROVIDERS": None, "API_THROTTLE_RATE": "1000000/min"}
