"""The admin site: Django's own, with the gateway's overview as its first page."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.auth.models import User
from django.db.models import Model
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path
from django.utils import timezone

from claudeproxy import organization_page
from claudeproxy.dashboard import overview
from claudeproxy.jobs_admin import JOB_PAGES

# In the order in which people need them; an app that is not named comes in between.
_FIRST_APPS = ("accounts", "clients", "usage")
_LAST_APPS = ("django_q", "auth")


class GatewayAdminSite(AdminSite):
    site_header = "Claude Proxy"
    site_title = "Claude Proxy"
    site_url = None  # there is no other site to view
    index_title = "Overview"
    index_template = "claudeproxy/overview.html"
    empty_value_display = "none"

    def register(
        self,
        model_or_iterable: type[Model] | Iterable[type[Model]],
        admin_class: type[ModelAdmin[Any]] | None = None,
        **options: Any,
    ) -> None:
        """Register pages as Django does, but those of the jobs as we want them.

        django-q2 registers pages on which everything can be edited; its models get
        ours, whichever of the two is imported first. When somebody logged in last is a
        fact; and a field to type it in would not say in which time zone it is.
        """
        if isinstance(model_or_iterable, type):
            model_or_iterable = [model_or_iterable]
        for model in model_or_iterable:
            own = options
            if model is User:
                own = {**options, "readonly_fields": ("last_login", "date_joined")}
            super().register(model, JOB_PAGES.get(model, admin_class), **own)

    def get_urls(self) -> list[URLPattern | URLResolver]:
        page = partial(organization_page.show, site=self)
        return [
            path(
                "organization/<path:uuid>/", self.admin_view(page), name="organization"
            ),
            *super().get_urls(),
        ]

    def get_app_list(
        self, request: HttpRequest, app_label: str | None = None
    ) -> list[dict[str, Any]]:
        apps = self._build_app_dict(request, app_label)
        return sorted(apps.values(), key=lambda app: _rank(app["app_label"]))

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        page = overview.load(
            request.user,
            base_url=request.build_absolute_uri("/").rstrip("/"),
            now=timezone.now(),
            span=request.GET.get("range", ""),
        )
        return super().index(request, {**(extra_context or {}), "overview": page})


def _rank(app_label: str) -> int:
    if app_label in _FIRST_APPS:
        return _FIRST_APPS.index(app_label) - len(_FIRST_APPS)
    if app_label in _LAST_APPS:
        return _LAST_APPS.index(app_label) + 1
    return 0
