"""What the server under test serves: the package as a project mounts it, and nothing else."""

from django.contrib import admin
from django.urls import include, path
from rest_framework.authtoken.views import ObtainAuthToken

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/token/", ObtainAuthToken.as_view(schema=None)),
    path("api/", include("django_blobstore.rest.urls")),
]
