"""What the server under test serves: the package as a project mounts it, and nothing else."""

from django.contrib import admin
from django.urls import include, path
from rest_framework.authtoken.views import obtain_auth_token

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/token/", obtain_auth_token),
    path("api/", include("django_blobstore.rest.urls")),
]
