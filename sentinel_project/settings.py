"""Settings of the gateway, all from the environment; see docs/reference/gateway-settings.md."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from environ import Env

import sessions_sticky
from sentinel_project import embedded, environment, metrics_folder
from sentinel_project.gateway.apis import APIS
from sentinel_project.gateway.providers.config import ECHO
from sentinel_project.gateway.providers.file import load_providers
from sentinel_project.log_config import log_config
from sentinel_project.secret_key import derived_key, read_key, secret_key
from sessions_sticky.connections.cache_config import cache_config
from sessions_sticky.identity.sources import DEFAULT_NAMED, DEFAULT_SOURCES, PLACE, SOURCE
from sessions_sticky.setting_values import ALLOWED_PREFIX, DEFAULT_TTL_SECONDS, check_prefix

os.umask(0o077)  # database, keys and logs are for this user alone, also in a folder that others may enter

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = environment.folder("SENTINEL_DATA_DIR", default=BASE_DIR / "var")
metrics_folder.prepare(DATA_DIR / "metrics")

DEBUG = environment.boolean("DEBUG", default=False)
SECRET_KEY = secret_key(DATA_DIR)
ALLOWED_HOSTS = environment.items(
    "ALLOWED_HOSTS",
    default=["localhost", "127.0.0.1", "[::1]"],
    pattern=r"[^\s/]+",
    allowed="host names with commas between them",
)

INSTALLED_APPS = [
    "sessions_sticky",
    "sentinel_project.gateway",
    "rest_framework",
    "rest_framework.authtoken",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "sentinel_project.gateway.healthchecks.any_host",
    "django.middleware.security.SecurityMiddleware",
    "sentinel_project.security_headers.security_headers",
    "sentinel_project.static_files.static_files",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "sentinel_project.urls"
WSGI_APPLICATION = "sentinel_project.wsgi.application"
ASGI_APPLICATION = "sentinel_project.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
TEST_RUNNER = "sentinel_project.test_runner.PytestRunner"

# Stores


SQLITE_OPTIONS = {
    "timeout": 5,  # seconds that a statement waits for another process's lock
    "transaction_mode": "IMMEDIATE",  # a transaction that writes later cannot wait for a lock then
    "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",  # readers do not wait for a writer
}


DATABASE_ENGINES = ("django.db.backends.postgresql", "django.db.backends.sqlite3")
"""The databases that the gateway supports; for others it lacks the driver, which Django would report in a traceback."""


def database_config(url: str) -> dict[str, Any]:
    """Read the URL of a PostgreSQL or SQLite database. django-environ treats an unknown scheme as a module's name."""
    config: dict[str, Any] = Env.db_url_config(url) if urlsplit(url).scheme in Env.DB_SCHEMES else {"ENGINE": ""}
    if config["ENGINE"] not in DATABASE_ENGINES:
        raise ValueError
    if config["ENGINE"] == DATABASE_ENGINES[1]:
        config["OPTIONS"] = {**SQLITE_OPTIONS, **config.get("OPTIONS", {})}
    return config


DATABASES = {
    "default": environment.read_url(
        "DATABASE_URL",
        database_config,
        default=f"sqlite:///{quote(str(DATA_DIR / 'db.sqlite3'))}",
        allowed="postgres://user:password@host:5432/name or sqlite:////path/to/file",
    ),
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {
    "default": environment.read_url(
        "REDIS_URL",
        cache_config,
        default=embedded.url(DATA_DIR),
        allowed="redis://host:6379/0, unix:///path/to/socket, redis+sentinel://host1,host2,host3/0?service=NAME or"
        " redis+cluster://host1,host2 (with TLS rediss instead of redis)",
        shows_reason=True,
    ),
}

# Sticky sessions

SESSION_TTL_SECONDS = environment.ttl_seconds("SESSION_TTL_SECONDS", default=DEFAULT_TTL_SECONDS)
SENTINEL_TRAIL_TURNS = environment.number("SENTINEL_TRAIL_TURNS", default=8, least=0, most=1_000)
SENTINEL_STREAM_USAGE = environment.boolean("SENTINEL_STREAM_USAGE", default=False)
SESSIONS_STICKY = {
    "METRICS": True,
    "TRAIL_LENGTH": SENTINEL_TRAIL_TURNS,
    "PREFIX": environment.read("SENTINEL_KEY_PREFIX", check_prefix, default="sentinel:", allowed=ALLOWED_PREFIX),
    "ON_STORE_ERROR": environment.choice("SENTINEL_ON_STORE_ERROR", ("degrade", "raise"), default="degrade"),
}
REST_FRAMEWORK = {
    # Tokens first: their 401 names the scheme; with sessions first it would be a 403 without one.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "EXCEPTION_HANDLER": "sessions_sticky.api.problems.problem_handler",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {
    "OAS_VERSION": "3.1.0",
    "TITLE": "Sticky sessions",
    "VERSION": sessions_sticky.__version__,
    "DESCRIPTION": "List, inspect, move and delete the bindings of LLM conversations to providers and models.",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    # The document contains only what the public source does, so it needs no login.
    "SERVE_AUTHENTICATION": [],
    "SERVE_INCLUDE_SCHEMA": False,
    # Swagger UI from the wheel, not from the Internet.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

# Gateway

SENTINEL_PROVIDERS = environment.read("SENTINEL_PROVIDERS", load_providers, default=ECHO)  # as read at the start
SENTINEL_PROVIDERS_FILE = environment.read("SENTINEL_PROVIDERS", str, default=None)
SENTINEL_ID_KEY = environment.read(
    "SENTINEL_ID_KEY", read_key, default=derived_key(SECRET_KEY, "SENTINEL_ID_KEY"), allowed="a secret text"
)
SENTINEL_PINNING_SOURCES = environment.items(
    "SENTINEL_PINNING_SOURCES",
    default=DEFAULT_NAMED,
    pattern=PLACE,
    allowed="places such as body.conversation_id or header.x-session-id (with * for any part), no header of a key, with"
    " commas between them",
)
SENTINEL_CONVERSATION_ID_SOURCES = environment.items(
    "SENTINEL_CONVERSATION_ID_SOURCES",
    default=DEFAULT_SOURCES,
    pattern=SOURCE,
    allowed="places such as body.session_id, header.x-session-id (with * for any part), no header of a key, or content,"
    " with commas between them",
)
SENTINEL_CONTENT_TTL_SECONDS = environment.ttl_seconds("SENTINEL_CONTENT_TTL_SECONDS", default=3600)
SENTINEL_OBJECT_TTL_SECONDS = environment.ttl_seconds("SENTINEL_OBJECT_TTL_SECONDS", default=30 * 86_400)
SENTINEL_LOG_HASHED_IDS = environment.boolean("SENTINEL_LOG_HASHED_IDS", default=False)
SENTINEL_CONVERSATION_SCOPE = environment.choice("SENTINEL_CONVERSATION_SCOPE", ("shared", "owner"), default="shared")
# For `manage.py sessions identify`, which prints what the gateway does.
SESSIONS_STICKY["PROVIDERS"] = "sentinel_project.gateway.providers.current.provider_names"
SESSIONS_STICKY["IDENTITY"] = {
    "apis": APIS,
    "key": SENTINEL_ID_KEY,
    "named": SENTINEL_PINNING_SOURCES,
    "sources": SENTINEL_CONVERSATION_ID_SOURCES,
    "scope": SENTINEL_CONVERSATION_SCOPE,
}
SENTINEL_TRACES = environment.boolean("SENTINEL_TRACES", default=False)
if SENTINEL_TRACES and find_spec("opentelemetry") is None:
    raise SystemExit("SENTINEL_TRACES needs opentelemetry-api: pip install 'sessions_sticky[traces]'")
SENTINEL_CORS_ORIGINS = environment.items(
    "SENTINEL_CORS_ORIGINS",
    default=(),
    pattern=r"\*|https?://[a-z0-9.:\[\]-]+",
    allowed="origins such as https://app.example.com (lower case, no path), or *, with commas between them",
)
SENTINEL_UPSTREAM_TIMEOUT_SECONDS = environment.number(
    "SENTINEL_UPSTREAM_TIMEOUT_SECONDS", default=600, least=1, most=86_400
)
SENTINEL_IDLE_TIMEOUT_SECONDS = environment.number("SENTINEL_IDLE_TIMEOUT_SECONDS", default=300, least=1, most=86_400)
SENTINEL_HEARTBEAT_SECONDS = environment.number("SENTINEL_HEARTBEAT_SECONDS", default=15, least=0, most=86_400)
SENTINEL_MAX_ATTEMPTS = environment.number("SENTINEL_MAX_ATTEMPTS", default=3, least=1, most=100)
SENTINEL_QUEUE_SECONDS = environment.number("SENTINEL_QUEUE_SECONDS", default=1, least=0, most=60)
SENTINEL_DRAIN_SECONDS = environment.number("SENTINEL_DRAIN_SECONDS", default=30, least=0, most=86_400)
SENTINEL_COOLDOWN_SECONDS = environment.number("SENTINEL_COOLDOWN_SECONDS", default=30, least=0, most=300)
DATA_UPLOAD_MAX_MEMORY_SIZE = environment.number(
    "SENTINEL_MAX_BODY_BYTES", default=32 * 2**20, least=1024, most=2**31 - 1
)
SENTINEL_MAX_CONNECTIONS = environment.number("SENTINEL_MAX_CONNECTIONS", default=4096, least=1, most=2**20)
SENTINEL_REQUEST_SECONDS = environment.number("SENTINEL_REQUEST_SECONDS", default=120, least=1, most=86_400)

# Web

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
DEFAULT_EXCEPTION_REPORTER_FILTER = "sentinel_project.error_report.ReportFilter"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]  # chosen by Accept-Language
USE_TZ = True
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = "sentinel_project.formats"  # one format of times in every language
STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATIC_ROOT.mkdir(exist_ok=True)  # ServeStatic warns without; it finds the files in the apps, no collectstatic needed
SERVESTATIC_USE_FINDERS = True
LOGGING = log_config(debug=DEBUG)
if environment.boolean("SENTINEL_HTTPS", default=False):
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = True
    CSRF_TRUSTED_ORIGINS = [f"https://{host}" for host in ALLOWED_HOSTS if host != "*"]
