"""What the site that browsers visit serves: the package as a project mounts it, and the files of its pages."""

from __future__ import annotations

from typing import Any

from django.contrib.staticfiles.views import serve
from django.urls import path

from django_blobstore.admin import removal
from tests.urls import urlpatterns as mounted

# A removal of some hundred objects takes several steps on any machine.
removal.STEP_SECONDS = 0.001

FILES: dict[str, Any] = {"insecure": True}  # though DEBUG is off

urlpatterns = [*mounted, path("static/<path:path>", serve, FILES)]
