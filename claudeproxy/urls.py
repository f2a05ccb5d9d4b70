"""What a browser opens, and the REST API. `/v1` and `/health` are in `proxy.urls`."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView
from rest_framework.routers import SimpleRouter

from accounts.api import AccountViewSet, SignInViewSet
from accounts.views import callback
from claudeproxy.api_docs import DocsView, NothingHereView, SchemaView
from claudeproxy.statistics import StatisticsViewSet
from clients.api import ClientKeyViewSet
from sessions_limit.api import SessionListViewSet, SessionViewSet
from usage.api import UsageViewSet

router = SimpleRouter()
router.trailing_slash = "/?"  # with or without
router.register("api/accounts", AccountViewSet, basename="account")
router.register("api/tokens", ClientKeyViewSet, basename="token")
router.register("api/sessions", SessionViewSet, basename="session")
router.register("api/admin/sessions", SessionListViewSet, basename="admin-session")
router.register("oauth", SignInViewSet, basename="signin")

api = [
    *router.urls,
    re_path(
        r"^api/usage/?$", UsageViewSet.as_view({"get": "totals"}), name="usage-totals"
    ),
    re_path(
        r"^api/usage/requests/?$",
        UsageViewSet.as_view({"get": "requests"}),
        name="usage-requests",
    ),
    re_path(
        r"^api/admin/statistics/?$",
        StatisticsViewSet.as_view({"get": "show"}),
        name="statistics",
    ),
    re_path(r"^api/schema/?$", SchemaView.as_view(), name="schema"),
    re_path(r"^api/docs/?$", DocsView.as_view(), name="docs"),
    # The last one: everything else below /api.
    re_path(r"^api(?:/.*)?$", NothingHereView.as_view(), name="nothing"),
]

urlpatterns = [
    path("admin/", admin.site.urls),
    path("oauth/callback", callback, name="oauth-callback"),
    path("", include((api, "api"))),
    path("", RedirectView.as_view(pattern_name="admin:index"), name="home"),
]
