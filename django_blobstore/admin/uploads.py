"""The panel through which a page of the admin uploads files, and the URLs that it sends them to.

The admin brings those URLs itself: the panel works in every project, whether it mounts the REST interface or not, for
those who may enter the admin, by their session.
"""

from __future__ import annotations

import json
from typing import Any

from django.contrib.admin import AdminSite
from django.urls import URLResolver, include, path, reverse
from django.utils.translation import gettext as _

from django_blobstore.admin.places import Place
from django_blobstore.rest import session_urls

# From here on a file is not hashed first, which takes as much memory, but sent so that a reload resumes it.
LONG = 256 * 1024 * 1024
# As much as the store keeps of an upload at a time.
PIECE = 32 * 1024 * 1024


def urls(site: AdminSite) -> URLResolver:
    """Return where the panel on pages of `site` sends files, for those who may enter it."""
    return path("upload/", include((session_urls.session_urls(site.has_permission), session_urls.app_name)))


def panel(site: AdminSite, place: Place, folder: str) -> dict[str, Any] | None:
    """Return what the template of the panel shows; None for who may not add objects to `place`.

    Objects come into buckets, into one's own namespace and into the global one, as over REST.
    """
    route = _route(place)
    if not route or not place.may("add"):
        return None
    args = [str(place.bucket.pk)] if place.bucket else []

    def url(name: str, *args: str) -> str:
        return reverse(f"admin:{session_urls.app_name}:{name}", args=args, current_app=site.name)

    return {
        "objects": url(f"{route}-object", *args, "-").removesuffix("-"),
        "put_requests": url(f"{route}-put-requests", *args),
        "taken": url(f"{route}-taken", *args),
        "uploads": url("uploads"),
        "target_json": json.dumps({"bucket": args[0]} if args else {"namespace": route}),
        "folder": folder,
        "may_replace": place.may("change"),
        "long": LONG,
        "piece": PIECE,
        "texts": _texts(),
    }


def _route(place: Place) -> str:
    user = place.namespace.user
    if place.bucket:
        return "" if user else "bucket"
    if user:
        return "me" if user == str(place.viewer.pk) else ""
    return "global"


def _texts() -> dict[str, Any]:
    """Return what the script says, with places for values as in ``%(name)s``."""
    return {
        "waiting": _("Waiting"),
        "comparing": _("Comparing with what is stored"),
        "linking": _("Already stored; linking"),
        "sending": _("Sending"),
        "retrying": _("The connection is lost; trying again"),
        "stored": _("Stored"),
        "replaced": _("Replaced"),
        "linked": _("Already stored, linked"),
        "skipped": _("Left out"),
        "cancelled": _("Cancelled"),
        "cancelOne": _("Cancel %(path)s"),
        "retryOne": _("Try %(path)s again"),
        "giveUpOne": _("Give up %(path)s"),
        "standing": _("%(done)s of %(total)s files · %(gone)s of %(all)s"),
        "over": _("Done. %(outcome)s"),
        "outcome.stored": _("Stored: %(count)s"),
        "outcome.replaced": _("Replaced: %(count)s"),
        "outcome.linked": _("Already stored, linked: %(count)s"),
        "outcome.skipped": _("Left out: %(count)s"),
        "outcome.cancelled": _("Cancelled: %(count)s"),
        "outcome.failed": _("Failed: %(count)s"),
        "sentOf": _("%(sent)s of %(size)s"),
        "more": _("and %(count)s more"),
        "looking": _("Looking through the folders; files so far: %(count)s"),
        "nothing": _("There was no file in what you chose."),
        "unreadableFolder": _("A folder could not be read, so nothing of it is uploaded: %(detail)s"),
        "failedWith": _("Not uploaded: %(detail)s"),
        "problems": _problems(),
    }


def _problems() -> dict[str, str]:
    """Return what the errors mean to whoever uploads and what to do, by their codes."""
    return {
        "unreachable": _("Not uploaded: the server cannot be reached. Check the connection, then try again."),
        "unreadable": _("Not uploaded: the file has changed or gone since it was chosen. Choose it again."),
        "not-authenticated": _("Not uploaded: you are logged out. Log in in another tab, then reload this page."),
        "permission-denied": _("Not uploaded: you may not do this here. Ask for the permission, or upload elsewhere."),
        "bucket-not-found": _("Not uploaded: the bucket is gone. Upload into another one."),
        "invalid-path": _("Not uploaded: no object can have this name. Rename the file, then choose it again."),
        "precondition-failed": _("Not uploaded: there is an object of this name by now. Choose the file again."),
        "quota-exceeded": _("Not uploaded: the bucket is full. Delete something, or ask for a larger quota."),
        "content-too-large": _("Not uploaded: the file is larger than what may be stored here."),
        "hash-mismatch": _("Not uploaded: something changed on the way. Try again."),
        "storage-full": _("Not uploaded: the storage is full. Tell whoever operates it."),
        "catalog-full": _("Not uploaded: the storage is full. Tell whoever operates it."),
        "storage-unreachable": _("Not uploaded: the storage is away for now. Try again later."),
        "catalog-unreachable": _("Not uploaded: the storage is away for now. Try again later."),
        "upload-lost": _("Not uploaded: the server has forgotten what was sent. Try again, from the beginning."),
        "throttled": _("Not uploaded: that were too many at a time. Try again later."),
        "status-413": _("Not uploaded: a server on the way takes no file that large. Tell whoever operates it."),
    }
