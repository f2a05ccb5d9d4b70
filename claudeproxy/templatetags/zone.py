"""Names the zone that a page tells its times in.

Django's own `date` leaves it out in the hour that comes twice when clocks go back: just
the one that needs it.
"""

from datetime import datetime

from django import template
from django.utils import timezone

register = template.Library()


@register.filter(expects_localtime=True)
def zone(at: datetime) -> str:
    """The short name of the zone at that time, such as CET, or its offset: +0545."""
    return at.tzname() or ""


@register.simple_tag
def clock() -> str:
    """What time it is, to the second."""
    now = timezone.localtime()
    return f"{now:%H:%M:%S} {zone(now)}"
