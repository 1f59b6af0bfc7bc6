"""What a confirmation page says about a removal before it is made."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.template.defaultfilters import filesizeformat
from django.utils.formats import number_format
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_blobstore.admin.columns import object_links
from django_blobstore.conf import conf
from django_blobstore.models import ManagedResourceQuerySet

# Few enough to leave the button that confirms in sight.
LISTED = 20


def summary(objects: ManagedResourceQuerySet) -> dict[str, Any]:
    """Return the lines of the page's summary: how many objects go and what that frees."""
    freed = objects.freed_by_removal()
    return {
        _("objects"): number_format(objects.count()),
        _("contents without a reference left"): number_format(freed.contents),
        _when_freed(): filesizeformat(freed.bytes),
    }


def listing(site: AdminSite, objects: ManagedResourceQuerySet) -> list[SafeString]:
    """Return links to the first objects, in the order of their paths, and how many more there are."""
    first = objects.select_related("bucket").order_by("path", "pk")[:LISTED]
    return list(object_links(site, first, objects.count()))


def _when_freed() -> str:
    if not conf.DELETION_GRACE:
        return _("bytes freed at once")
    return _("bytes freed after a grace of %(seconds)g seconds") % {"seconds": conf.DELETION_GRACE}
