"""Django's settings, and the only place that reads the environment.

Every variable is described in `.env.example`. A wrong value is collected in
`ENVIRONMENT_PROBLEMS` and reported by `manage.py check`; see `environment.py`.
"""

import os
import secrets
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import django_stubs_ext

from claudeproxy import __version__, logs, secretfiles
from claudeproxy.environment import Environment

# Lets `ModelAdmin[Account]` be written where the code runs, not only for mypy.
django_stubs_ext.monkeypatch()

# --- environment and paths ------------------------------------------------------------

BASE_DIR = Path(__file__).resolve().parent.parent

environment = Environment()
environment.load_file(BASE_DIR / ".env")
ENVIRONMENT_NAMES = environment.names
ENVIRONMENT_PROBLEMS = environment.problems

DEBUG = environment.flag("DEBUG", default=False)
DATA_DIR = environment.read(
    "DATA_DIR", lambda raw: Path(raw).resolve(), BASE_DIR / "var"
)
# Whatever this process writes (database, journals, secrets) is its owner's alone.
os.umask(0o077)
with secretfiles.usable("DATA_DIR", DATA_DIR):
    secretfiles.ensure_directory(DATA_DIR)

# --- apps and middleware --------------------------------------------------------------

INSTALLED_APPS = [
    "claudeproxy.apps.ClaudeProxyConfig",
    "accounts.apps.AccountsConfig",
    "clients.apps.ClientsConfig",
    "sessions_limit.apps.SessionsLimitConfig",
    "usage.apps.UsageConfig",
    "proxy.apps.ProxyConfig",
    "claudeproxy.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "csp",
    "django_q",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]

# For the admin and everything else that a browser opens.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "claudeproxy.operator_time.OperatorTimeMiddleware",
]

# For `/v1`, `/health` and the probes: async only, outermost first.
GATEWAY_MIDDLEWARE = ["proxy.middleware.error_envelope"]

ROOT_URLCONF = "claudeproxy.urls"
GATEWAY_URLCONF = "proxy.urls"
ASGI_APPLICATION = "claudeproxy.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True
# Django's own stays UTC, whatever the operator's is: it would move schedules and the
# REST API too. `claudeproxy.operator_time` puts pages into the operator's (ADR 16).
TIME_ZONE = "UTC"
OPERATOR_TIME_ZONE = environment.time_zone("TIME_ZONE")
FORMAT_MODULE_PATH = "claudeproxy.formats"

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Files are served from where the apps keep them: nothing to collect, nothing stale.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

# --- data -----------------------------------------------------------------------------

SQLITE_OPTIONS: dict[str, Any] = {
    # A transaction takes the write lock when it begins: one that began with a read
    # and then writes would fail at once under SQLite's default, whatever the timeout.
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    # Whoever's turn it is to empty the log waits for the disk: each 16 MB, not each 4.
    "init_command": (
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; "
        "PRAGMA wal_autocheckpoint=4000;"
    ),
}
POSTGRES_OPTIONS: dict[str, Any] = {
    "connect_timeout": 10,
    # A line that is dead and says nothing would hold a thread for a quarter of an hour.
    "tcp_user_timeout": 30_000,
    "pool": {"min_size": 1, "max_size": 8, "timeout": 10},
}

_database = environment.database(
    "DATABASE_URL", f"sqlite:///{DATA_DIR / 'claudeproxy.sqlite3'}"
)
_is_sqlite = _database["ENGINE"].endswith("sqlite3")
_database["OPTIONS"] = {
    **(SQLITE_OPTIONS if _is_sqlite else POSTGRES_OPTIONS),
    **_database.get("OPTIONS", {}),
}
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- security -------------------------------------------------------------------------

SECRET_KEY = environment.text("SECRET_KEY")
ENCRYPTION_KEYS = environment.items("ENCRYPTION_KEYS", [])
# Where the keys are kept if none are given: one on a line, the first encrypts.
ENCRYPTION_KEY_FILE = None if ENCRYPTION_KEYS else DATA_DIR / "encryption_key"
with secretfiles.usable("DATA_DIR", DATA_DIR):
    SECRET_KEY = SECRET_KEY or secretfiles.read_or_create(
        DATA_DIR / "secret_key", lambda: secrets.token_urlsafe(50)
    )
    if ENCRYPTION_KEY_FILE:
        ENCRYPTION_KEYS = secretfiles.read_or_create(
            ENCRYPTION_KEY_FILE, secretfiles.new_fernet_key
        ).split()
ALLOWED_HOSTS = environment.items("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])

# On when people reach the admin through TLS that a proxy in front takes care of.
HTTPS = environment.flag("HTTPS", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
if HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],  # the admin's own style sheets carry icons so
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "admin:login"

# --- REST API -------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "claudeproxy.api.ClientKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["claudeproxy.api.AdminsOnly"],
    "DEFAULT_PARSER_CLASSES": ["claudeproxy.api.SmallJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "claudeproxy.api.Pages",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "claudeproxy.api.answer_error",
    "DEFAULT_METADATA_CLASS": None,
    "URL_FORMAT_OVERRIDE": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Claude Proxy",
    "DESCRIPTION": "The administration of the gateway. Clients call /v1 instead, "
    "which is the API of Claude itself.",
    "VERSION": __version__,
    "SCHEMA_PATH_PREFIX": "/api",
    "COMPONENT_SPLIT_PATCH": False,  # what a PATCH may change, it must name
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": REST_FRAMEWORK["DEFAULT_PERMISSION_CLASSES"],
    "PREPROCESSING_HOOKS": ["claudeproxy.api_docs.without_slash_at_end"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "claudeproxy.api_docs.with_errors",
    ],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "AccountKind": "accounts.status.AccountKind",
        "AccountStatus": "accounts.status.AccountStatus",
        "ClientKeyRole": "clients.models.ClientKeyRole",
    },
    # Everything the page loads comes from here, and nothing is told to others.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None},
}

# --- django-q2 ------------------------------------------------------------------------

Q_CLUSTER = {
    "name": "claudeproxy",
    "orm": "default",
    "workers": 1,
    "recycle": 500,
    # `retry` must exceed `timeout`, or a job that runs long is started a second time.
    "timeout": 60,
    "retry": 90,
    "max_attempts": 3,
    "ack_failures": False,
    "catch_up": False,
    "poll": 1,
    "guard_cycle": 1,
    "save_limit": 100,
    "save_limit_per": "func",
    "label": "Jobs",
}

# --- logging --------------------------------------------------------------------------

LOG_LEVEL = environment.choice(
    "LOG_LEVEL", "info", ("debug", "info", "warning", "error")
)
LOG_FORMAT = environment.choice("LOG_FORMAT", "auto", ("auto", "json", "console"))
LOGGING_CONFIG = None
logs.configure(
    level=LOG_LEVEL,
    as_json=LOG_FORMAT == "json" or (LOG_FORMAT == "auto" and not sys.stderr.isatty()),
)

# --- the gateway ----------------------------------------------------------------------

HOST = environment.text("HOST", "127.0.0.1")
PORT = environment.number("PORT", 4000, low=0, high=65_535)
WEB_WORKERS = environment.number("WEB_WORKERS", 1, low=1, high=64)
UPSTREAM_BASE_URL = environment.text(
    "UPSTREAM_BASE_URL", "https://api.anthropic.com"
).rstrip("/")
REQUEST_TIMEOUT: timedelta = environment.duration("REQUEST_TIMEOUT", "5m")
ROUTING_STRATEGY = environment.choice(
    "ROUTING_STRATEGY", "affinity", ("affinity", "round_robin")
)
OAUTH_CLIENT_ID = environment.text("OAUTH_CLIENT_ID")
OAUTH_AUTHORIZE_URL = environment.text("OAUTH_AUTHORIZE_URL")
OAUTH_TOKEN_URL = environment.text("OAUTH_TOKEN_URL")
OAUTH_REDIRECT_URI = environment.text("OAUTH_REDIRECT_URI")
OAUTH_SCOPE = environment.text("OAUTH_SCOPE", "user:profile user:inference")
ACCOUNTS_IDLE_THRESHOLD: timedelta = environment.duration(
    "ACCOUNTS_IDLE_THRESHOLD", "168h", low="1h"
)
ACCOUNTS_AUTO_DEACTIVATE = environment.flag("ACCOUNTS_AUTO_DEACTIVATE", default=True)
RATE_LIMIT_DEFAULT: timedelta = environment.duration("RATE_LIMIT_DEFAULT", "1h")
SESSION_ENABLED = environment.flag("SESSION_ENABLED", default=True)
SESSION_MAX_CONCURRENT = environment.number(
    "SESSION_MAX_CONCURRENT", 3, low=1, high=100_000
)
SESSION_TTL: timedelta = environment.duration("SESSION_TTL", "5m", low="10s")
SESSION_CLEANUP_ENABLED = environment.flag("SESSION_CLEANUP_ENABLED", default=True)
SESSION_CLEANUP_INTERVAL: timedelta = environment.duration(
    "SESSION_CLEANUP_INTERVAL", "1m", low="1m", step="1m"
)
SESSION_IDENTITY = environment.items("SESSION_IDENTITY", ["ip", "user_agent"])
SESSION_IPV6_PREFIX = environment.number("SESSION_IPV6_PREFIX", 64, low=1, high=128)
SESSION_MAX_REQUESTS = environment.number(
    "SESSION_MAX_REQUESTS", 0, low=0, high=100_000
)
# Whose word about where a request came from is believed.
TRUSTED_PROXIES = environment.items("TRUSTED_PROXIES", [])
REDIS_URL = environment.text("REDIS_URL")
RETRY_ENABLED = environment.flag("RETRY_ENABLED", default=True)
RETRY_MAX_ATTEMPTS = environment.number("RETRY_MAX_ATTEMPTS", 5, low=1, high=20)
RETRY_BASE_DELAY: timedelta = environment.duration("RETRY_BASE_DELAY", "1s", low="0s")
RETRY_MAX_DELAY: timedelta = environment.duration("RETRY_MAX_DELAY", "60s", low="0s")
RETRY_JITTER_MAX: timedelta = environment.duration(
    "RETRY_JITTER_MAX", "500ms", low="0s"
)
RETRY_GATE_SECONDS: timedelta = environment.duration(
    "RETRY_GATE_SECONDS", "1s", low="0s"
)
DRAIN_TIMEOUT: timedelta = environment.duration("DRAIN_TIMEOUT", "30s", low="0s")
USAGE_RETENTION: timedelta = environment.duration("USAGE_RETENTION", "90d", low="1d")
