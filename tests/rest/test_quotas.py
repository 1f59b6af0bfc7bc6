"""Quotas over HTTP: who sees and sets them, and what is refused, as early as can be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PendingFile, Resource, ResumableUpload
from tests.invariants import assert_settled, assert_sound
from tests.rest import api, object_permissions, raw_http
from tests.rest.object_permissions import grant
from tests.rest.test_put_requests import ask, prove
from tests.rest.test_tus import target
from tests.servers import Site
from tests.stored import Stored
from tests.streams import MIB, content_of

QUOTA = 6000
CONTENT = content_of(5000)


@pytest.fixture
def bucket(database: str, stored: Stored) -> Bucket:
    """The owner's bucket with 2000 of its 6000 bytes in use; in another of theirs there are 5000 more."""
    bucket = Bucket.objects.create(name="bucket", owner=api.person("owner"), quota_bytes=QUOTA)
    roomy = Bucket.objects.create(name="roomy", owner=bucket.owner)
    ManagedStorage().put(Namespace(bucket=bucket.pk), "there", content_of(2000))
    ManagedStorage().put(Namespace(bucket=roomy.pk), "large", CONTENT)
    return bucket


@pytest.fixture
def owner(bucket: Bucket) -> APIClient:
    return api.client(bucket.owner)


def put(client: APIClient, bucket: Bucket) -> Any:
    return api.put(client, f"/api/buckets/{bucket.pk}/objects/new", CONTENT)


def prove_it(client: APIClient, bucket: Bucket) -> Any:
    return prove(client, ask(client, bucket, "new"))


def copy(client: APIClient, bucket: Bucket, what: str = "copy") -> Any:
    wanted = {"source": "large", "target": "new", "target_bucket": str(bucket.pk)}
    return client.post(f"/api/buckets/{Bucket.objects.get(name='roomy').pk}/{what}", wanted, format="json")


def move(client: APIClient, bucket: Bucket) -> Any:
    return copy(client, bucket, "move")


def in_parts(client: APIClient, bucket: Bucket) -> Any:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Defer-Length": "1", "Upload-Metadata": target(bucket, "new")}
    url = client.post("/api/uploads/", headers=headers)["Location"]
    headers = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Upload-Length": str(len(CONTENT))}
    return client.generic("PATCH", url, CONTENT, "application/offset+octet-stream", headers=headers)


WAYS_IN: dict[str, Callable[[APIClient, Bucket], Any]] = {
    "put": put,
    "proof": prove_it,
    "copy": copy,
    "move": move,
    "tus": in_parts,
}


@pytest.mark.parametrize("way", list(WAYS_IN))
def test_no_way_in_passes_the_quota(owner: APIClient, bucket: Bucket, stored: Stored, way: str) -> None:
    refused = WAYS_IN[way](owner, bucket)
    assert (refused.status_code, refused.json()["code"]) == (507, "quota-exceeded")
    assert (refused.json()["bucket"], refused.json()["quota"], refused.json()["length"]) == (str(bucket.pk), 6000, 7000)
    assert sorted(ManagedResource.objects.values_list("path", flat=True)) == ["large", "there"]
    assert_sound(stored)
    Bucket.objects.filter(pk=bucket.pk).update(quota_bytes=QUOTA + 1000)
    assert WAYS_IN[way](owner, bucket).status_code in (201, 204)
    assert_sound(stored)


def test_what_would_never_fit_is_too_large_and_what_shrinks_an_object_fits(
    owner: APIClient, bucket: Bucket, stored: Stored
) -> None:
    url = f"/api/buckets/{bucket.pk}/objects/"
    refused = api.put(owner, url + "new", bytes(QUOTA + 1))
    assert (refused.status_code, refused.json()["code"]) == (413, "content-too-large")
    assert refused.json()["limit"] == QUOTA
    assert api.put(owner, url + "there", bytes(QUOTA)).status_code == 200
    Bucket.objects.filter(pk=bucket.pk).update(quota_bytes=10)
    assert api.put(owner, url + "there", bytes(QUOTA - 1)).status_code == 200
    assert api.put(owner, url + "there", bytes(QUOTA)).status_code == 413
    assert owner.delete(url + "there").status_code == 204
    assert api.put(owner, url + "there", bytes(10)).status_code == 201
    assert api.put(owner, url + "new", bytes(1)).status_code == 507
    assert api.put(owner, url + "new", b"", CONTENT_LENGTH="0").status_code == 201
    assert_settled(stored)


def test_a_bucket_without_a_quota_and_what_is_outside_buckets_is_not_bounded(owner: APIClient, bucket: Bucket) -> None:
    Bucket.objects.update(quota_bytes=None)
    for place in (f"buckets/{bucket.pk}", "me"):
        assert api.put(owner, f"/api/{place}/objects/new", content_of(2 * QUOTA)).status_code == 201


@pytest.mark.parametrize(("length", "status"), [(len(CONTENT), 507), (MIB, 413)])
def test_an_upload_in_parts_is_refused_at_its_begin(owner: APIClient, bucket: Bucket, length: int, status: int) -> None:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(length), "Upload-Metadata": target(bucket, "new")}
    assert owner.post("/api/uploads/", headers=headers).status_code == status
    assert not ResumableUpload.objects.exists()


@pytest.mark.parametrize("server", ["gunicorn"])
@pytest.mark.parametrize(("length", "status"), [(len(CONTENT), 507), (MIB, 413)])
def test_a_client_is_told_before_it_sends_the_body(site: Site, bucket: Bucket, length: int, status: int) -> None:
    path = f"/api/buckets/{bucket.pk}/objects/new"
    head = raw_http.head("PUT", site.url, path, f"Content-Length: {length}", "Expect: 100-continue")
    answer = raw_http.send(site.url, head)
    assert answer.status == status
    assert not ManagedResource.objects.filter(path="new").exists()
    assert not PendingFile.objects.exists()
    assert Resource.objects.count() == 2


def test_a_body_of_unknown_length_is_refused_once_it_is_too_long(site: Site, bucket: Bucket, stored: Stored) -> None:
    with api.remote(site) as http:
        refused = http.put(f"buckets/{bucket.pk}/objects/new", content=iter([CONTENT]))
    assert (refused.status_code, refused.json()["code"]) == (507, "quota-exceeded")
    assert not ManagedResource.objects.filter(path="new").exists()
    assert_sound(stored)


def test_the_quota_is_shown_to_the_owner_and_to_who_may_set_it(owner: APIClient, bucket: Bucket, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = object_permissions.BACKENDS
    url = f"/api/buckets/{bucket.pk}/"
    viewer = api.person("viewer", "view_bucket")
    changer = api.person("changer", "view_bucket", "change_bucket")
    of_one = api.person("changer of one", "view_bucket")
    grant(of_one, "change_bucket", bucket)
    shown = [api.client(user).get(url).json().get("quota_bytes") for user in (bucket.owner, changer, viewer, of_one)]
    assert shown == [QUOTA, QUOTA, None, None]
    assert "quota_bytes" not in api.client(viewer).get(url).json()
    listed = {one["name"]: one.get("quota_bytes", "") for one in owner.get("/api/buckets/").json()["buckets"]}
    assert listed == {"bucket": QUOTA, "roomy": None}
    object_permissions.granted.clear()


def test_who_may_change_any_bucket_sets_quotas_and_nobody_else(owner: APIClient, bucket: Bucket, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = object_permissions.BACKENDS
    url = f"/api/buckets/{bucket.pk}/"
    of_one = api.person("changer of one")
    grant(of_one, "change_bucket", bucket)
    for quota in (None, 10**9, QUOTA):
        for client in (owner, api.client(of_one)):
            refused = client.patch(url, {"quota_bytes": quota, "name": "new"}, format="json")
            assert (refused.status_code, refused.json()["code"]) == (403, "permission-denied")
    object_permissions.granted.clear()
    bucket.refresh_from_db()
    assert (bucket.name, bucket.quota_bytes) == ("bucket", QUOTA)
    changer = api.client(api.person("changer", "change_bucket", "add_bucket"))
    for quota in (0, 2**63 - 1, None):
        changed = changer.patch(url, {"quota_bytes": quota}, format="json")
        assert (changed.status_code, changed.json()["quota_bytes"], changed.json()["name"]) == (200, quota, "bucket")
        bucket.refresh_from_db()
        assert bucket.quota_bytes == quota
    for wrong in (-1, 2**63, "much", 1.5):
        assert changer.patch(url, {"quota_bytes": wrong}, format="json").status_code == 400
    made = changer.post("/api/buckets/", {"name": "mine", "quota_bytes": 5}, format="json")
    assert (made.status_code, made.json()["quota_bytes"]) == (201, 5)


def test_who_makes_a_bucket_cannot_give_it_a_quota(bucket: Bucket) -> None:
    maker = api.client(api.person("maker", "add_bucket"))
    assert maker.post("/api/buckets/", {"name": "mine", "quota_bytes": 5}, format="json").status_code == 403
    made = maker.post("/api/buckets/", {"name": "mine"}, format="json")
    assert (made.status_code, made.json()["quota_bytes"]) == (201, None)
