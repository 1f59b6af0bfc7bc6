"""How lengths, hashes, namespaces and links read on every page of the admin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.contrib.admin.utils import quote
from django.db.models import Model
from django.urls import reverse
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_blobstore.models import ManagedResource, PendingFile, PutRequest
from django_blobstore.templatetags.blobstore_admin import day, human_length, short_hash

__all__ = ["day", "human_length", "link", "namespace_name", "object_links", "page_url", "short_hash"]


def namespace_name(row: ManagedResource | PutRequest | PendingFile) -> str:
    """Name the namespace of `row`, whose bucket may be gone."""
    bucket = row.bucket or row.bucket_id
    if bucket and row.user:
        return _("%(bucket)s, user %(user)s") % {"bucket": bucket, "user": row.user}
    if bucket:
        return str(bucket)
    return _("user %(user)s") % {"user": row.user} if row.user else _("global")


def link(url: str, text: object) -> SafeString:
    return format_html('<a href="{}">{}</a>', url, text)


def page_url(site: AdminSite, model: type[Model], page: str, pk: Any = None, **filters: object) -> str:
    """Return the address of an admin page of `model`: of one row, or of the list with `filters`."""
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}"
    url = reverse(name, args=() if pk is None else (quote(pk),), current_app=site.name)
    return f"{url}?{urlencode(filters)}" if filters else url


def object_links(site: AdminSite, objects: Iterable[ManagedResource], total: int) -> Iterator[SafeString]:
    """Yield a link to each of `objects`, and how many more of `total` there are."""
    shown = 0
    for managed in objects:
        shown += 1
        url = page_url(site, ManagedResource, "change", managed.pk)
        yield format_html("{} ({})", link(url, managed.path), namespace_name(managed))
    if total > shown:
        yield format_html("… {}", _("and %(count)s more") % {"count": number_format(total - shown)})
