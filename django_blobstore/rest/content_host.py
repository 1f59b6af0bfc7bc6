"""Which host sends what users uploaded, if not the site's own, and that it answers nothing else."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse, HttpResponseNotFound, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin

from django_blobstore.conf import conf
from django_blobstore.models import ManagedResource
from django_blobstore.rest.grants import Grant
from django_blobstore.rest.paths import absolute_url

# Seconds in which the client must have followed.
SIGNED_FOR = 60
SIGNED_VIEW = "signed-object"


def sent_to_content_host(request: HttpRequest, managed: ManagedResource) -> HttpResponse | None:
    """Return a redirect to the bytes of `managed` on ``CONTENT_HOST``; None if there is none, or it is asked already.

    The URL is signed, as the other host knows nobody, and good for this content only.
    """
    if not conf.CONTENT_HOST or request.method != "GET" or _is_content_host(request):
        return None
    namespace, sha384 = managed.namespace, managed.resource.sha384
    grant = Grant(str(namespace.bucket), namespace.user, int(timezone.now().timestamp()) + SIGNED_FOR, sha384)
    # The URL is as secret as the bytes, and soon of no use.
    headers = {"Cache-Control": "no-store", "X-Content-SHA384": sha384}
    return HttpResponseRedirect(signed_url(request, grant, managed.path), headers=headers)


def signed_url(request: HttpRequest, grant: Grant, path: str) -> str:
    """Return the URL by which whoever has it can use `grant` for `path`; on ``CONTENT_HOST``, if there is one."""
    url = absolute_url(request, SIGNED_VIEW, **grant.sign(path))
    return conf.CONTENT_HOST + urlsplit(url).path if conf.CONTENT_HOST else url


class ContentHostMiddleware(MiddlewareMixin):
    """Has ``CONTENT_HOST`` answer signed URLs and nothing else: what it sends must never meet a page or a cookie."""

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponseBase | None:
        match = request.resolver_match
        is_signed = match is not None and "blobstore" in match.app_names and match.url_name == SIGNED_VIEW
        return None if is_signed or not _is_content_host(request) else HttpResponseNotFound()


def _is_content_host(request: HttpRequest) -> bool:
    return bool(conf.CONTENT_HOST) and request.get_host().lower() == urlsplit(conf.CONTENT_HOST).netloc.lower()
