"""How numbers, hashes and dates read on the pages of the admin."""

from __future__ import annotations

from datetime import datetime

from django import template
from django.template.defaultfilters import filesizeformat
from django.utils.formats import date_format, number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import is_aware, localtime
from django.utils.translation import ngettext, ngettext_lazy

register = template.Library()

_UNITS = [
    (86_400, ngettext_lazy("%(number)d day", "%(number)d days", "number")),
    (3_600, ngettext_lazy("%(number)d hour", "%(number)d hours", "number")),
    (60, ngettext_lazy("%(number)d minute", "%(number)d minutes", "number")),
    (1, ngettext_lazy("%(number)d second", "%(number)d seconds", "number")),
]


@register.filter
def human_length(length: int) -> SafeString:
    """Show a number of bytes in the unit people think in, with the exact one in the tooltip."""
    exact = ngettext("%(length)s byte", "%(length)s bytes", length) % {"length": number_format(length)}
    return format_html('<span title="{}">{}</span>', exact, filesizeformat(length))


@register.filter
def short_hash(sha384: str) -> SafeString:
    """Show the start of a hash, with all of it in the tooltip."""
    return format_html('<code title="{}">{}…</code>', sha384, sha384[:12])


@register.filter
def day(moment: datetime) -> SafeString:
    """Show a date, with the time in the tooltip."""
    local = localtime(moment) if is_aware(moment) else moment
    exact = date_format(local, "DATETIME_FORMAT")
    return format_html('<time datetime="{}" title="{}">{}</time>', local.isoformat(), exact, date_format(local))


@register.filter
def human_duration(seconds: float) -> str:
    """Write how long something lasts, in the two largest units at most: "5 minutes", "1 hour, 30 minutes"."""
    left, words = round(seconds), []
    for length, unit in _UNITS:
        number, left = divmod(left, length)
        if number:
            words.append(unit % {"number": number})
    return ", ".join(words[:2]) or _UNITS[-1][1] % {"number": 0}


@register.filter
def grouped(number: int) -> str:
    """Write `number` in groups of three digits, whatever USE_THOUSAND_SEPARATOR says: "1,000,000"."""
    return number_format(number, force_grouping=True)


@register.filter
def unlocalized(key: object) -> str:
    """Write a primary key as a form sends it back."""
    return str(key)
