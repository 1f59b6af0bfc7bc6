"""How Django learns of the app."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class BlobstoreConfig(AppConfig):
    """Registers the system checks when the app is loaded."""

    name = "django_blobstore"
    verbose_name = _("Blob store")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Only now can models be imported.
        from django_blobstore.checks import register_checks

        register_checks()
