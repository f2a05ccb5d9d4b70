"""The page of an organization at the provider: its accounts, and what they used."""

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from django.utils import timezone

from accounts.models import Account
from claudeproxy.dashboard import usage_panel
from usage.reports import Only


def show(request: HttpRequest, uuid: str, *, site: AdminSite) -> TemplateResponse:
    """Show an organization by its id at the provider, as long as it has accounts."""
    if not request.user.has_perm("accounts.view_account"):
        raise PermissionDenied
    members = Account.objects.filter(organization_uuid=uuid).most_urgent_first()
    accounts = list(members) if "\x00" not in uuid else []  # PostgreSQL takes none
    if not accounts:
        raise Http404("No account belongs to this organization.")
    now = timezone.now()
    context = {
        **site.each_context(request),
        "title": accounts[0].organization_name or uuid,
        "uuid": uuid,
        "accounts": accounts,
        "now": now,
        "usage": usage_panel.load(
            request.user,
            span=request.GET.get("range", ""),
            now=now,
            only=Only(account_ids=tuple(account.pk for account in accounts)),
        ),
    }
    return TemplateResponse(request, "claudeproxy/organization.html", context)
