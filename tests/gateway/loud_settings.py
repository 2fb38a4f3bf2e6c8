"""The gateway's settings, with every logger at DEBUG."""

from sentinel_project.settings import *  # noqa: F403

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}, "json": {"format": "%(message)s"}},
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "line"},
        "requests": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"},
    },
    "root": {"handlers": ["console"], "level": "DEBUG"},
    "loggers": {
        "sentinel_project.requests": {"handlers": ["requests"], "level": "DEBUG", "propagate": False},
        **{name: {"level": "DEBUG"} for name in ("django", "sessions_sticky", "sentinel_project", "asyncio")},
    },
}
