"""The admin site: Django's own, under the gateway's name."""

from django.contrib.admin import AdminSite


class GatewayAdminSite(AdminSite):
    site_header = "Claude Proxy"
    site_title = "Claude Proxy"
    index_title = "Overview"
