"""Pages for some of the models: an admin that leads to a row needs one."""

from __future__ import annotations

from django.contrib import admin

from tests.gallery.models import Paper, Photo

admin.site.register(Photo)
admin.site.register(Paper)
