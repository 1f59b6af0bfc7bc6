"""People who use the REST interface in tests, and the requests they make."""

from __future__ import annotations

from typing import Any

import httpx
from django.contrib.auth.models import Permission, User
from rest_framework.test import APIClient

from tests.servers import Site

PASSWORD = "x"
# A connection for each request: a server may close one whose request it refused before it had read the body.
ONE_BY_ONE = httpx.Limits(max_keepalive_connections=0)


def person(name: str, *permissions: str) -> User:
    """Return a new user with `permissions`, by codename."""
    user = User.objects.create_user(name, password=PASSWORD)
    granted = Permission.objects.filter(content_type__app_label="django_blobstore", codename__in=permissions)
    assert len(granted) == len(permissions)
    user.user_permissions.set(granted)
    return user


def administrator() -> User:
    """Return a new user called root who may do everything."""
    return User.objects.create_superuser("root", password=PASSWORD)


def client(user: User | None = None) -> APIClient:
    """Return a client in this process, logged in as `user`; an error nobody foresaw is raised, not answered."""
    client = APIClient()
    if user:
        client.force_authenticate(user)
    return client


def remote(site: Site, user: str = "root") -> httpx.Client:
    """Return a client of the REST interface of `site`, whose URLs are relative to it."""
    return httpx.Client(base_url=f"{site.url}/api/", auth=(user, PASSWORD), timeout=120, limits=ONE_BY_ONE)


def put(client: APIClient, url: str, content: bytes = b"content", **headers: Any) -> Any:
    """PUT raw `content` to `url`; keyword arguments are headers as WSGI names them."""
    return client.generic("PUT", url, content, headers.pop("content_type", ""), **headers)
