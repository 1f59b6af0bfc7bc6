"""How errors are told: problem+json with a stable code, whoever raised them."""

from __future__ import annotations

import errno
from typing import Any
from uuid import uuid4

import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.test import override_settings
from django.urls import path
from pytest_django import Settings
from rest_framework import exceptions
from rest_framework.test import APIClient
from rest_framework.throttling import UserRateThrottle
from rest_framework.views import APIView

from django_blobstore import errors
from django_blobstore.crew import Interrupted
from django_blobstore.rest.problems import KNOWN, problem_of
from django_blobstore.rest.viewsets import BucketViewSet
from tests.rest import api

# Errors of callers in Python that no request can bring about: a request that does is our mistake, and a 500.
OURS = {"AlreadyUploaded", "CountBypassed", "FailpointReached", Interrupted.__name__, "StorageRenamed"}


def every(cls: type[Exception]) -> set[type[Exception]]:
    return {cls}.union(*map(every, cls.__subclasses__()))


def test_every_error_has_a_status_and_a_code_or_is_our_own_mistake() -> None:
    # Those of the client are on the other side, and private ones never leave their module.
    public = {cls for cls in every(errors.BlobstoreError) if not cls.__name__.startswith("_")}
    all_errors = {cls for cls in public if "django_blobstore.client" not in cls.__module__}
    known = {cls for cls in all_errors if any(base in KNOWN for base in cls.__mro__)}
    abstract = {"BlobstoreError", "ContentError", "InvalidName", "ProofError", "ResumableError"}
    assert {cls.__name__ for cls in all_errors - known} == OURS | abstract
    codes = [code for _, code in KNOWN.values()]
    assert len(codes) == len(set(codes))


def test_a_problem_carries_what_the_error_knows() -> None:
    problem = problem_of(errors.HashMismatch("a" * 96, "b" * 96))
    assert problem
    assert problem.as_dict() == {
        "type": "urn:django-blobstore:problem:hash-mismatch",
        "title": "Hash mismatch",
        "status": 422,
        "detail": f"Expected sha384 {'a' * 96}, got {'b' * 96}; nothing was stored.",
        "code": "hash-mismatch",
        "expected": "a" * 96,
        "actual": "b" * 96,
        "algorithm": "sha384",
    }


@pytest.mark.parametrize(
    ("error", "status", "code", "seconds"),
    [
        (errors.UploadPending("x", retry_after=7), 503, "upload-pending", "7"),
        (errors.CatalogBusy(5), 503, "catalog-busy", "1"),
        (errors.LeaseLost("x"), 503, "lease-lost", "1"),
        (errors.TooManyFailures("x", retry_after=9), 429, "too-many-failures", "9"),
        (ConnectionRefusedError("mongod"), 503, "storage-unreachable", "5"),
        (TimeoutError("mongod"), 503, "storage-unreachable", "5"),
        (OSError(errno.ENOSPC, "full"), 507, "storage-full", None),
        (Http404(), 404, "not-found", None),
        (PermissionDenied(), 403, "permission-denied", None),
        (exceptions.Throttled(wait=3), 429, "throttled", "3"),
        (exceptions.UnsupportedMediaType("text/x"), 415, "unsupported-media-type", None),
        (exceptions.NotAcceptable(), 406, "not-acceptable", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_who_should_wait_is_told_how_long(error: Exception, status: int, code: str, seconds: str | None) -> None:
    problem = problem_of(error)
    assert problem
    assert (problem.status, problem.code, problem.headers.get("Retry-After")) == (status, code, seconds)


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), FileNotFoundError("x"), errors.AlreadyUploaded(1, "x")]
)
def test_what_nobody_foresaw_is_left_to_django(error: Exception) -> None:
    assert problem_of(error) is None


def test_text_that_utf8_cannot_carry_is_told_escaped() -> None:
    problem = problem_of(errors.InvalidPath(chr(0xD800), "it is not valid UTF-8"))
    assert problem
    assert problem.as_dict()["value"] == "\\ud800"


def test_a_method_that_is_not_there_is_told_with_those_that_are(database: str) -> None:
    client = api.client(api.administrator())
    for method, url, allowed in [
        ("POST", "/api/me/objects/x", "GET, PUT, DELETE, HEAD, OPTIONS"),
        ("PUT", "/api/me/objects/", "GET, HEAD, OPTIONS"),
        ("PUT", f"/api/buckets/{uuid4()}/", "GET, PATCH, DELETE, HEAD, OPTIONS"),
        ("GET", "/api/put-requests/x/", "POST, OPTIONS"),
        ("TRACE", "/api/me/objects/x", "GET, PUT, DELETE, HEAD, OPTIONS"),
    ]:
        answer: Any = client.generic(method, url)
        assert (answer.status_code, answer.json()["code"], answer["Allow"]) == (405, "method-not-allowed", allowed)
        assert answer["Content-Type"] == "application/problem+json"


def test_a_body_of_another_type_than_json_is_refused(database: str) -> None:
    answer: Any = api.client(api.administrator()).generic(
        "POST", "/api/buckets/", "name=x", "application/x-www-form-urlencoded"
    )
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")


def test_an_accept_header_that_cannot_be_met_is_refused_in_json(database: str) -> None:
    answer = api.client(api.administrator()).get("/api/buckets/", HTTP_ACCEPT="image/png")
    assert (answer.status_code, answer["Content-Type"]) == (406, "application/problem+json")


def test_a_caller_above_the_projects_rate_is_told_to_wait(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class OncePerHour(UserRateThrottle):
        rate = "1/hour"
        scope = database

    monkeypatch.setattr(BucketViewSet, "throttle_classes", [OncePerHour])
    client = api.client(api.administrator())
    assert client.get("/api/buckets/").status_code == 200
    answer = client.get("/api/buckets/")
    assert (answer.status_code, answer.json()["code"]) == (429, "throttled")
    assert int(answer["Retry-After"]) > 3000


class Theirs(APIView):
    """A view of the project's own."""

    authentication_classes = []
    permission_classes = []

    def get(self, request: Any) -> None:
        raise exceptions.NotFound


urlpatterns = [path("theirs/", Theirs.as_view())]


@override_settings(ROOT_URLCONF=__name__)
def test_views_of_the_project_tell_errors_as_they_did() -> None:
    answer = APIClient().get("/theirs/")
    assert (answer["Content-Type"], answer.json()) == ("application/json", {"detail": "Not found."})


def test_what_the_project_chose_for_its_own_views_does_not_change_ours(database: str, settings: Settings) -> None:
    framework = {"EXCEPTION_HANDLER": "nowhere.at.all", "DEFAULT_PERMISSION_CLASSES": [], "PAGE_SIZE": 1}
    settings.REST_FRAMEWORK = settings.REST_FRAMEWORK | framework
    assert api.client().get("/api/buckets/").json()["code"] == "not-authenticated"
