"""Asking for pages of the admin as somebody with given permissions."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from django.contrib.auth.models import Permission, User
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from django_blobstore.models import ManagedResource


def administrator() -> Client:
    """Return a client logged in as somebody who may do everything."""
    return _logged_in(User.objects.create_superuser("root"))


def staff(*permissions: str) -> Client:
    """Return a client logged in as a member of the staff who has just these permissions, by codename."""
    user = User.objects.create_user("staff", is_staff=True)
    granted = Permission.objects.filter(content_type__app_label="django_blobstore", codename__in=permissions)
    assert len(granted) == len(permissions)
    user.user_permissions.set(granted)
    return _logged_in(user)


def page(model: type[Model], name: str, *args: Any) -> str:
    """Return the path of the page `name` of `model`, such as "changelist"."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


def confirmed(client: Client, response: HttpResponse) -> HttpResponse:
    """Confirm the removal that a page asks about, and go on until it is done; return the last page."""
    while sent := re.search(r'name="removal" value="([^"]*)"', response.content.decode()):
        response = client.post(page(ManagedResource, "remove"), {"removal": sent[1]})
        assert response.status_code == 200
    return response


def text(response: HttpResponse) -> str:
    """Return what a reader sees of a page."""
    main = response.content.decode().partition('id="content-start"')[2]
    return " ".join(unescape(re.sub(r"<script.*?</script>|<[^>]*>", " ", main, flags=re.DOTALL)).split())


def listed(response: HttpResponse) -> list[Any]:
    """Return the rows of a list page, in order."""
    assert response.status_code == 200
    rows: list[Any] = list(response.context["cl"].result_list)
    return rows


def _logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client
