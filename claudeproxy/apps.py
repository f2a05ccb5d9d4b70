"""The project's own Django apps: its checks, and the admin site it replaces."""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig as DjangoAdminConfig


class ClaudeProxyConfig(AppConfig):
    name = "claudeproxy"
    verbose_name = "Claude Proxy"

    def ready(self) -> None:
        from claudeproxy import checks, schedules  # noqa: F401  # they register
        from claudeproxy.neighbours import SessionNeighbours
        from sessions_limit import neighbours

        neighbours.introduce(SessionNeighbours())


class AdminConfig(DjangoAdminConfig):
    default_site = "claudeproxy.admin.GatewayAdminSite"
