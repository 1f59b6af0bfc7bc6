"""Which URL leads to which view; the project mounts them where it likes."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver

app_name = "blobstore"
urlpatterns: list[URLPattern | URLResolver] = []
