"""Put requests over HTTP: referring to content by proving to hold it."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db.models import F
from django.utils.dateparse import parse_datetime
from pytest_django import Settings
from rest_framework.test import APIClient

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PutRequest, Resource, ResumableUpload
from django_blobstore.proof import RequestResponse, answer
from tests.invariants import assert_sound
from tests.rest import api
from tests.rest.test_tus import told
from tests.stored import Stored
from tests.streams import content_of, sha384

CONTENT = content_of(5000)
KEYS = {"request_id", "nonce", "ranges", "range_start", "range_length", "expires_at", "algorithm"}


@pytest.fixture
def bucket(database: str, stored: Stored) -> Bucket:
    """The asker's bucket; the content lies in another one."""
    ManagedStorage().put(Namespace(bucket="elsewhere"), "original", CONTENT)
    return Bucket.objects.create(owner=api.person("asker"))


@pytest.fixture
def asker(bucket: Bucket) -> APIClient:
    return api.client(bucket.owner)


def ask(client: APIClient, bucket: Bucket | None, path: str = "copy", content: bytes = CONTENT, **said: Any) -> Any:
    place = f"buckets/{bucket.pk}" if bucket else "me"
    wanted = {"path": path, "sha384": sha384(content), **said}
    return client.post(f"/api/{place}/put-requests/", wanted, format="json")


def prove(client: APIClient, asked: Any, content: bytes = CONTENT) -> Any:
    """Answer as a holder of `content` does who knows nothing but the JSON."""
    request = asked.json()
    challenge = RequestResponse(
        request_id=request["request_id"],
        range_start=request["range_start"],
        range_length=request["range_length"],
        nonce=base64.b64decode(request["nonce"]),
        ranges=tuple((start, length) for start, length in request["ranges"]),
        algorithm=request["algorithm"],
    )
    proof = answer(content, challenge, sha384(CONTENT)).sha384
    return client.post(f"/api/put-requests/{request['request_id']}/", {"proof": proof}, format="json")


def refusal(response: Any) -> tuple[int, str]:
    assert response["Content-Type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


def assert_only_the_original(stored: Stored) -> None:
    assert [managed.path for managed in ManagedResource.objects.all()] == ["original"]
    assert Resource.objects.get().reference_count == 1
    assert_sound(stored)


def test_a_holder_of_the_content_refers_to_it_without_sending_it(
    asker: APIClient, bucket: Bucket, stored: Stored
) -> None:
    files = stored.names()
    for place in (bucket, None):
        asked = ask(asker, place)
        assert (asked.status_code, set(asked.json())) == (201, KEYS)
        assert isinstance(parse_datetime(asked.json()["expires_at"]), datetime)
        assert asked["Location"].endswith(f"/api/put-requests/{asked.json()['request_id']}/")
        proven = prove(asker, asked)
        assert proven.status_code == 201
        assert (proven.json()["path"], proven.json()["sha384"]) == ("copy", sha384(CONTENT))
        assert proven["ETag"] == f'"{sha384(CONTENT)}"'
        assert b"".join(asker.get(proven["Location"]).streaming_content) == CONTENT
    assert stored.names() == files
    assert Resource.objects.get().reference_count == 3
    assert_sound(stored)


def test_a_proof_for_a_path_in_use_replaces_the_object(asker: APIClient, bucket: Bucket, stored: Stored) -> None:
    api.put(asker, f"/api/buckets/{bucket.pk}/objects/copy", b"old")
    assert prove(asker, ask(asker, bucket)).status_code == 200
    assert_sound(stored)


def test_a_proof_for_a_new_object_replaces_none_and_can_be_answered_without_the_condition(
    asker: APIClient, bucket: Bucket, stored: Stored
) -> None:
    asker.credentials(HTTP_IF_NONE_MATCH="*")
    asked = ask(asker, bucket)
    ManagedStorage().put(Namespace(bucket=bucket.pk), "copy", b"quicker")
    assert refusal(prove(asker, asked)) == refusal(ask(asker, bucket)) == (412, "precondition-failed")
    assert ManagedStorage().get(Namespace(bucket=bucket.pk), "copy").read() == b"quicker"
    asker.credentials()
    assert prove(asker, asked).status_code == 200
    assert ManagedStorage().get(Namespace(bucket=bucket.pk), "copy").read() == CONTENT
    assert_sound(stored)


def test_the_object_has_the_content_type_and_the_metadata_that_were_asked_for(
    asker: APIClient, bucket: Bucket, stored: Stored
) -> None:
    said = {"content_type": "image/png", "metadata": {"colour": " grün "}}
    assert prove(asker, ask(asker, bucket, **said)).json().items() >= said.items()
    guessed = prove(asker, ask(asker, bucket, "a.html")).json()
    assert (guessed["content_type"], guessed["metadata"]) == ("text/html", {})


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"content_type": "nonsense"}, "invalid"),
        ({"content_type": "a/b\r\nX: y"}, "invalid"),
        ({"metadata": []}, "invalid"),
        ({"metadata": None}, "invalid"),
        ({"metadata": {"A": "x"}}, "invalid-metadata"),
        ({"metadata": {"a": 1}}, "invalid-metadata"),
        ({"metadata": {"a": "\0"}}, "invalid-metadata"),
        ({"metadata": {"a": "x" * 2048}}, "invalid-metadata"),
    ],
    ids=str,
)
def test_what_could_not_be_said_in_a_put_cannot_be_asked_for(
    asker: APIClient, bucket: Bucket, said: dict[str, Any], code: str
) -> None:
    assert refusal(ask(asker, bucket, **said)) == (400, code)
    assert not PutRequest.objects.exists()


def test_content_that_somebody_uploads_in_parts_is_pending(asker: APIClient, bucket: Bucket, stored: Stored) -> None:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "9", "Upload-Metadata": told(sha384=sha384(b"in parts!"))}
    root = api.client(api.administrator())
    upload = root.post("/api/uploads/", headers=headers)["Location"]
    pending = ask(asker, bucket, content=b"in parts!")
    assert refusal(pending) == (503, "upload-pending")
    assert int(pending["Retry-After"]) > 0
    assert refusal(ask(asker, bucket, content=b"others")) == (404, "resource-not-found")
    ResumableUpload.objects.update(lease_until=F("created_at"))
    assert refusal(ask(asker, bucket, content=b"in parts!")) == (404, "resource-not-found")
    root.delete(upload, headers=headers)
    assert_only_the_original(stored)


@pytest.mark.parametrize("blobstore", [{"DEDUP_SCOPE": "bucket"}, {"PROOF_SCOPE": "readable"}, {"PROOF_SCOPE": "off"}])
def test_an_upload_in_parts_does_not_show_to_those_who_do_not_share_content(
    asker: APIClient, bucket: Bucket, stored: Stored, settings: Settings, blobstore: dict[str, str]
) -> None:
    settings.BLOBSTORE = blobstore
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "9", "Upload-Metadata": told(sha384=sha384(b"in parts!"))}
    assert api.client(api.administrator()).post("/api/uploads/", headers=headers).status_code == 201
    assert refusal(ask(asker, bucket, content=b"in parts!")) == (404, "resource-not-found")


def test_content_that_is_not_stored_cannot_be_asked_for(asker: APIClient, bucket: Bucket, stored: Stored) -> None:
    assert refusal(ask(asker, bucket, content=b"other")) == (404, "resource-not-found")
    assert not PutRequest.objects.exists()


def test_a_wrong_answer_is_refused_and_uses_the_request_up(asker: APIClient, bucket: Bucket, stored: Stored) -> None:
    asked = ask(asker, bucket)
    assert refusal(prove(asker, asked, content_of(5000, 1))) == (409, "response-mismatch")
    assert refusal(prove(asker, asked)) == (410, "request-expired")
    assert_only_the_original(stored)


def test_a_request_is_answered_once(asker: APIClient, bucket: Bucket, stored: Stored) -> None:
    asked = ask(asker, bucket)
    assert prove(asker, asked).status_code == 201
    assert refusal(prove(asker, asked)) == (410, "request-expired")
    assert ManagedResource.objects.count() == Resource.objects.get().reference_count == 2
    assert_sound(stored)


def test_a_request_is_answered_in_time(asker: APIClient, bucket: Bucket, stored: Stored) -> None:
    asked = ask(asker, bucket)
    PutRequest.objects.update(expires_at=F("expires_at") - timedelta(seconds=61))
    assert refusal(prove(asker, asked)) == (410, "request-expired")
    assert_only_the_original(stored)


def test_a_stranger_finds_no_request_and_uses_none_up(asker: APIClient, bucket: Bucket, stored: Stored) -> None:
    asked = ask(asker, bucket)
    assert refusal(prove(api.client(api.administrator()), asked)) == (404, "request-not-found")
    assert_only_the_original(stored)
    assert prove(asker, asked).status_code == 201


@pytest.mark.parametrize("request_id", ["nothing", "%00", "x" * 23, "ü", "a b", "a%2Fb"])
def test_what_is_no_request_is_not_found(asker: APIClient, request_id: str) -> None:
    answer = asker.post(f"/api/put-requests/{request_id}/", {"proof": "0" * 96}, format="json")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "proof", ['""', f'"{"0" * 201}"', "1", "null", "[]", r'"\u0000"', r'"\ud800"', '"ü"', f'"{"0" * 95}"']
)
def test_what_is_no_proof_is_refused(asker: APIClient, bucket: Bucket, stored: Stored, proof: str) -> None:
    asked = ask(asker, bucket)
    answer = asker.generic("POST", asked["Location"], f'{{"proof": {proof}}}'.encode(), "application/json")
    assert refusal(answer) in [(400, "invalid"), (409, "response-mismatch")]
    assert_only_the_original(stored)


def test_content_removed_meanwhile_is_told_as_deleted(asker: APIClient, bucket: Bucket, stored: Stored) -> None:
    asked = ask(asker, bucket)
    ManagedStorage().remove(Namespace(bucket="elsewhere"), "original")
    assert refusal(prove(asker, asked)) == (410, "resource-deleted")
    assert not ManagedResource.objects.exists()
    assert not Resource.objects.exists()


def test_after_five_wrong_answers_one_has_to_wait(asker: APIClient, bucket: Bucket, stored: Stored) -> None:
    for _ in range(5):
        assert refusal(prove(asker, ask(asker, bucket), content_of(5000, 1))) == (409, "response-mismatch")
    refused = ask(asker, bucket)
    assert refusal(refused) == (429, "too-many-failures")
    assert int(refused["Retry-After"]) == refused.json()["retry_after"] > 0
    assert_only_the_original(stored)


def test_rights_that_went_after_the_request_are_gone_for_the_answer(
    asker: APIClient, bucket: Bucket, stored: Stored
) -> None:
    asked = ask(asker, bucket)
    Bucket.objects.filter(pk=bucket.pk).update(owner=None)
    assert refusal(prove(asker, asked)) == (404, "bucket-not-found")
    asked = ask(api.client(api.administrator()), bucket)
    Bucket.objects.filter(pk=bucket.pk).delete()
    assert refusal(prove(asker, asked)) == (404, "request-not-found")
    assert_only_the_original(stored)


def test_a_bucket_that_went_after_the_request_is_not_made_again(
    asker: APIClient, bucket: Bucket, stored: Stored
) -> None:
    asked = ask(asker, bucket)
    Bucket.objects.filter(pk=bucket.pk).delete()
    assert refusal(prove(asker, asked)) == (404, "bucket-not-found")
    assert not Bucket.objects.filter(pk=bucket.pk).exists()
    assert_only_the_original(stored)


def test_with_the_scope_readable_only_what_one_may_read_can_be_claimed(
    asker: APIClient, bucket: Bucket, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"PROOF_SCOPE": "readable"}
    assert refusal(ask(asker, bucket)) == (404, "resource-not-found")
    assert ask(api.client(api.administrator()), bucket).status_code == 201
    Bucket.objects.exclude(pk=bucket.pk).update(owner=bucket.owner)
    assert prove(asker, ask(asker, bucket)).status_code == 201
    assert_sound(stored)


def test_with_the_scope_off_nothing_can_be_claimed(
    asker: APIClient, bucket: Bucket, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"PROOF_SCOPE": "off"}
    assert refusal(ask(asker, bucket)) == (404, "resource-not-found")
    assert_only_the_original(stored)
