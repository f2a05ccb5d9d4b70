"""Lets the pages of an account and of a key show what it used.

Apps do not know each other, and so their pages ask by a tag: it is above all of them.
"""

from typing import Any

from django import template
from django.template.context import RequestContext
from django.utils import timezone

from claudeproxy.dashboard import usage_panel
from usage.reports import Only

register = template.Library()


@register.inclusion_tag("claudeproxy/_usage_of.html", takes_context=True)
def usage_of_account(context: RequestContext, account_id: int) -> dict[str, Any]:
    """What one account used."""
    return _context(context, Only(account_id=account_id))


@register.inclusion_tag("claudeproxy/_usage_of.html", takes_context=True)
def usage_of_key(context: RequestContext, key_id: int) -> dict[str, Any]:
    """What was used with one key."""
    return _context(context, Only(key_id=key_id))


def _context(context: RequestContext, only: Only) -> dict[str, Any]:
    request = context["request"]
    span = request.GET.get("range", "")
    panel = usage_panel.load(request.user, span=span, now=timezone.now(), only=only)
    return {"usage": panel}
