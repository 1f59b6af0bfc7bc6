"""Where the example project mounts the admin, the REST interface and its documentation."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView
from rest_framework.authtoken.views import ObtainAuthToken

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("favicon.ico", RedirectView.as_view(url=static("django_blobstore/icon.svg"))),
    path("admin/", admin.site.urls),
    path("api-auth/", include("rest_framework.urls")),
]

if settings.HAS_DOCS:
    from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

    urlpatterns += [
        path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
        path("api/docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    ]

urlpatterns += [
    path("api/token/", ObtainAuthToken.as_view(schema=None), name="token"),  # no part of the interface
    path("api/", include("django_blobstore.rest.urls")),
    *staticfiles_urlpatterns(),
]
