"""Typed access to the gateway's own settings; `settings.py` reads them once."""

from datetime import timedelta, tzinfo
from pathlib import Path
from typing import Literal, TypeAlias, cast

from django.conf import settings

RoutingStrategy: TypeAlias = Literal["affinity", "round_robin"]


class Conf:
    """One property for each setting the code asks for, with its type and unit."""

    @property
    def data_dir(self) -> Path:
        return settings.DATA_DIR

    @property
    def host(self) -> str:
        return settings.HOST

    @property
    def port(self) -> int:
        return settings.PORT

    @property
    def web_workers(self) -> int:
        return settings.WEB_WORKERS

    @property
    def operator_time_zone(self) -> tzinfo:
        """What pages for people tell time in; everything else is UTC."""
        return settings.OPERATOR_TIME_ZONE

    @property
    def encryption_keys(self) -> list[str]:
        """Fernet keys; the first encrypts, all decrypt."""
        return settings.ENCRYPTION_KEYS

    @property
    def upstream_base_url(self) -> str:
        """Scheme, host and optional path, without a slash at the end."""
        return settings.UPSTREAM_BASE_URL

    @property
    def request_timeout(self) -> timedelta:
        """How long the upstream may stay silent before the request is given up."""
        return settings.REQUEST_TIMEOUT

    @property
    def routing_strategy(self) -> RoutingStrategy:
        return cast(RoutingStrategy, settings.ROUTING_STRATEGY)

    @property
    def oauth_client_id(self) -> str:
        """The id under which the provider knows this gateway; none is shipped."""
        return settings.OAUTH_CLIENT_ID

    @property
    def oauth_authorize_url(self) -> str:
        return settings.OAUTH_AUTHORIZE_URL

    @property
    def oauth_token_url(self) -> str:
        return settings.OAUTH_TOKEN_URL

    @property
    def oauth_redirect_uri(self) -> str:
        """Where the provider sends people back; empty: to this gateway itself."""
        return settings.OAUTH_REDIRECT_URI

    @property
    def oauth_scope(self) -> str:
        return settings.OAUTH_SCOPE

    @property
    def idle_threshold(self) -> timedelta:
        """An account that served nothing for so long is idle."""
        return settings.ACCOUNTS_IDLE_THRESHOLD

    @property
    def deactivates_idle(self) -> bool:
        return settings.ACCOUNTS_AUTO_DEACTIVATE

    @property
    def rate_limit_default(self) -> timedelta:
        """How long a limit is taken to last where the provider does not say."""
        return settings.RATE_LIMIT_DEFAULT

    @property
    def session_enabled(self) -> bool:
        return settings.SESSION_ENABLED

    @property
    def session_max_concurrent(self) -> int:
        """How many sessions of keys without a limit of their own may be alive."""
        return settings.SESSION_MAX_CONCURRENT

    @property
    def session_ttl(self) -> timedelta:
        """How long a session is alive after its last request."""
        return settings.SESSION_TTL

    @property
    def session_cleanup_enabled(self) -> bool:
        return settings.SESSION_CLEANUP_ENABLED

    @property
    def session_cleanup_interval(self) -> timedelta:
        """How often sessions that have ended are forgotten; whole minutes."""
        return settings.SESSION_CLEANUP_INTERVAL

    @property
    def session_identity(self) -> list[str]:
        """What makes a session: any of `ip`, `user_agent`, `key`."""
        return settings.SESSION_IDENTITY

    @property
    def session_ipv6_prefix(self) -> int:
        """Addresses of IPv6 that agree in so many bits are one client's."""
        return settings.SESSION_IPV6_PREFIX

    @property
    def session_max_requests(self) -> int:
        """How many requests of a session may run at a time; 0: any number."""
        return settings.SESSION_MAX_REQUESTS

    @property
    def trusted_proxies(self) -> list[str]:
        """Addresses and CIDRs of proxies whose forwarding headers are believed."""
        return settings.TRUSTED_PROXIES

    @property
    def redis_url(self) -> str:
        """Where Redis keeps the sessions; empty: the database does."""
        return settings.REDIS_URL

    @property
    def retry_enabled(self) -> bool:
        return settings.RETRY_ENABLED

    @property
    def retry_max_attempts(self) -> int:
        return settings.RETRY_MAX_ATTEMPTS

    @property
    def retry_base_delay(self) -> timedelta:
        return settings.RETRY_BASE_DELAY

    @property
    def retry_max_delay(self) -> timedelta:
        return settings.RETRY_MAX_DELAY

    @property
    def retry_jitter_max(self) -> timedelta:
        return settings.RETRY_JITTER_MAX

    @property
    def retry_gate(self) -> timedelta:
        """How long a stream may be silent after its begin before it is passed on."""
        return settings.RETRY_GATE_SECONDS

    @property
    def drain_timeout(self) -> timedelta:
        """How long open answers may go on after the worker was told to stop."""
        return settings.DRAIN_TIMEOUT

    @property
    def usage_retention(self) -> timedelta:
        """How long single requests are kept; their sums are kept for ever."""
        return settings.USAGE_RETENTION


conf = Conf()
