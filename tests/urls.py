"""What the server under test serves: the package as a project mounts it, and nothing else."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("django_blobstore.rest.urls")),
]
