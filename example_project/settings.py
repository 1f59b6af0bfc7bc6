"""A project as `startproject` makes it, with django-blobstore added; the lines that matter to it say so.

Two environment variables decide where things are kept. DEMO_DATA is a directory for the catalog (SQLite).
MONGODB_URI keeps the bytes in GridFS; without it they are plain files. `manage.py demo` sets both.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DEMO_DATA", BASE_DIR / "demo-data" / "files"))
MONGODB_URI = os.environ.get("MONGODB_URI", "")

SECRET_KEY = "django-insecure-this-key-is-public-and-only-for-the-demo"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",  # for the REST interface
    "rest_framework.authtoken",  # for programs that ask it, such as the blobstore command
    "django_blobstore",  # the package itself
    "example_project",
]

# Browsable documentation of the REST interface, from the "openapi" extra.
HAS_DOCS = all(find_spec(name) for name in ("drf_spectacular", "drf_spectacular_sidecar"))
if HAS_DOCS:
    INSTALLED_APPS += ["drf_spectacular", "drf_spectacular_sidecar"]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# SQLite takes several writers at once only like this; PostgreSQL needs no options.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA / "catalog.sqlite3",
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The alias "blobstore" is where the bytes go. Any Django storage will do.
GRIDFS = {
    "BACKEND": "django_blobstore.storages.GridFSStorage",
    "OPTIONS": {"uri": MONGODB_URI, "database": "blobstore_demo", "namespace": "blobs"},
}
FILES = {
    "BACKEND": "django.core.files.storage.FileSystemStorage",
    "OPTIONS": {"location": DATA / "blobs"},
}
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "blobstore": GRIDFS if MONGODB_URI else FILES,
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "rest_framework.authentication.BasicAuthentication",
        "rest_framework.authentication.TokenAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
}
if HAS_DOCS:
    REST_FRAMEWORK["DEFAULT_SCHEMA_CLASS"] = "drf_spectacular.openapi.AutoSchema"
SPECTACULAR_SETTINGS = {
    "TITLE": "django-blobstore",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "POSTPROCESSING_HOOKS": ["django_blobstore.rest.openapi.add_bodiless_methods"],
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",  # the page loads nothing from other hosts
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

# The demo has one host only; what users upload should come from another one.
SILENCED_SYSTEM_CHECKS = ["blobstore.W006"]

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
STATIC_URL = "static/"
