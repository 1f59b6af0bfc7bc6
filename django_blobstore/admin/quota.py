"""How the quota of a bucket is written by people, and how much of it is used up."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.template.defaultfilters import filesizeformat
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_blobstore.models import Bucket

# As Django writes sizes on all pages: each unit is 1,024 of the one before.
UNITS = ("", "K", "M", "G", "T", "P")
LARGEST = 2**63 - 1
# At most two digits after the point, so that none can be meant to part thousands.
_SIZE = re.compile(r"(\d{1,30})(?:[.,](\d{1,2}))? ?([KMGTP]?)(?:i?B|bytes?)?", re.ASCII | re.IGNORECASE)


class QuotaField(forms.Field):
    """A number of bytes, written as one or with a unit as in "1.5 GB"; None if it is left empty."""

    default_error_messages = {
        "invalid": gettext_lazy("Write a size such as 500 MB or 1.5 GB, or a number of bytes; none means no limit."),
        "too_large": gettext_lazy("This is more than any bucket can hold; leave it empty for no limit."),
    }

    def to_python(self, value: Any) -> int | None:
        written = " ".join(str(value or "").split())
        if not written:
            return None
        size = _SIZE.fullmatch(written)
        if size is None:
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        whole, fraction, unit = size.groups(default="")
        if fraction and not unit:
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        hundredths = int(whole) * 100 + int(fraction.ljust(2, "0"))
        length: int = hundredths * 1024 ** UNITS.index(unit.upper()) // 100
        if length > LARGEST:
            raise ValidationError(self.error_messages["too_large"], code="too_large")
        return length

    def prepare_value(self, value: Any) -> Any:
        """Write a quota in the largest unit that says it exactly; leave what was typed as it is."""
        if not isinstance(value, int) or not value:
            return value
        power = max(power for power in range(len(UNITS)) if value % 1024**power == 0)
        return f"{value // 1024**power} {UNITS[power]}B" if power else str(value)


class BucketForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's own class takes no arguments
    """What may be changed of a bucket."""

    quota_bytes = QuotaField(
        label=gettext_lazy("Quota"),
        required=False,
        help_text=gettext_lazy("How much its objects may come to, such as 500 MB or 1.5 GB. Empty: no limit."),
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
    )


def used_percent(bucket: Bucket, length: int) -> int:
    """Return how much of the quota, which `bucket` must have, `length` bytes are; a little is never 0, nor 100."""
    quota = bucket.quota_bytes or 0
    if length >= quota:
        return 100 * length // quota if quota else 100
    return min(max(round(100 * length / quota), 1 if length else 0), 99)


def use_in_words(bucket: Bucket, length: int) -> str:
    """Say how much of the quota of `bucket` its `length` bytes use up; "" if it has none."""
    if bucket.quota_bytes is None:
        return ""
    quota, percent = filesizeformat(bucket.quota_bytes), number_format(used_percent(bucket, length))
    return _("%(percent)s %% of %(quota)s") % {"percent": percent, "quota": quota}


def use(bucket: Bucket, length: int) -> SafeString | str:
    """Show the same beside a meter that is red from nine tenths on; a dash if `bucket` has no quota."""
    if bucket.quota_bytes is None:
        return "-"
    percent, told = used_percent(bucket, length), use_in_words(bucket, length)
    return format_html(
        '<meter class="blobstore-quota" min="0" max="100" low="75" high="90" optimum="0" value="{}" aria-hidden="true">'
        "</meter> {}",
        str(min(percent, 100)),
        told,
    )
