from django.apps import AppConfig


class SessionsLimitConfig(AppConfig):
    name = "sessions_limit"
    verbose_name = "Session limit"
