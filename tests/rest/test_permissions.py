"""What each of Django's permissions gives, in general and for one bucket; see also the permission matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource
from tests.conftest import ON_ONE_DATABASE
from tests.rest import api, object_permissions
from tests.rest.object_permissions import grant
from tests.stored import Stored
from tests.streams import sha384

pytestmark = [
    pytest.mark.parametrize("storage_kind", ["memory"]),
    pytest.mark.parametrize("database", ON_ONE_DATABASE, indirect=True),
]

BUCKET = "/api/buckets/{bucket}/"
ASK = {"sha384": sha384(b"there")}
# What is sent, and the status where it is allowed; the bucket is not empty, and the content asked for is stored.
OPERATIONS: dict[str, tuple[str, str, Any, int]] = {
    "show": ("GET", BUCKET, None, 200),
    "rename": ("PATCH", BUCKET, {"name": "new"}, 200),
    "delete": ("DELETE", BUCKET, None, 409),
    "list": ("GET", BUCKET + "objects/", None, 200),
    "get": ("GET", BUCKET + "objects/there", None, 200),
    "head": ("HEAD", BUCKET + "objects/there", None, 200),
    "stat": ("POST", BUCKET + "stat", {"paths": ["there"]}, 200),
    "sign": ("POST", BUCKET + "sign", {"path": "there"}, 200),
    "remove many": ("POST", BUCKET + "delete", {"paths": ["there"]}, 200),
    "describe": ("POST", BUCKET + "describe", {"path": "there", "content_type": "a/b"}, 200),
    "put new": ("PUT", BUCKET + "objects/new", b"new", 201),
    "put over": ("PUT", BUCKET + "objects/there", b"new", 200),
    "remove": ("DELETE", BUCKET + "objects/there", None, 204),
    "ask new": ("POST", BUCKET + "put-requests/", ASK | {"path": "new"}, 201),
    "ask over": ("POST", BUCKET + "put-requests/", ASK | {"path": "there"}, 201),
}

# What is allowed with each permission, in general or for the bucket alone, to somebody else than the owner.
GIVES = {
    "view_bucket": {"show"},
    "change_bucket": {"rename"},
    "delete_bucket": {"delete"},
    "add_bucket": set(),
    "view_managedresource": {"list", "get", "head", "stat", "sign"},
    "add_managedresource": {"put new", "ask new"},
    "change_managedresource": {"put over", "ask over", "describe"},
    "delete_managedresource": {"remove", "remove many"},
}


@pytest.fixture
def bucket(database: str, stored: Stored) -> Bucket:
    bucket = Bucket.objects.create(name="bucket", owner=api.person("owner"))
    ManagedStorage().put(Namespace(bucket=bucket.pk), "there", b"there")
    return bucket


@pytest.fixture(autouse=True)
def object_backend(settings: Settings) -> Iterator[None]:
    settings.AUTHENTICATION_BACKENDS = object_permissions.BACKENDS
    yield
    object_permissions.granted.clear()


def send(user: User | None, name: str, bucket: Bucket) -> Any:
    """Return the answer to the operation `name` as `user`."""
    method, url, data, _ = OPERATIONS[name]
    client = api.client(user)
    url = url.format(bucket=bucket.pk)
    if isinstance(data, bytes):
        return api.put(client, url, data)
    return getattr(client, method.lower())(url, data, format="json")


def attempt(user: User | None, name: str, bucket: Bucket) -> tuple[int, str]:
    """Do the operation `name` as `user`, undo it, and return the status and the code, which a HEAD has none of."""
    answer = send(user, name, bucket)
    store, namespace = ManagedStorage(), Namespace(bucket=bucket.pk)
    Bucket.objects.filter(pk=bucket.pk).update(name="bucket")
    store.put(namespace, "there", b"there")
    store.remove_all(ManagedResource.objects.within(namespace).exclude(path="there"))
    is_problem = answer.get("Content-Type") == "application/problem+json" and OPERATIONS[name][0] != "HEAD"
    return answer.status_code, answer.json()["code"] if is_problem else ""


def allowed(user: User | None, bucket: Bucket) -> set[str]:
    """Return the operations that `user` may do, having seen that all others are refused with the same status."""
    statuses = {name: attempt(user, name, bucket)[0] for name in OPERATIONS}
    done = {name for name, status in statuses.items() if status == OPERATIONS[name][-1]}
    assert len({status for name, status in statuses.items() if name not in done}) <= 1, statuses
    return done


def test_who_may_do_nothing_with_a_bucket_is_told_that_there_is_none(database: str, bucket: Bucket) -> None:
    stranger = api.person("stranger")
    assert attempt(None, "get", bucket) == (401, "not-authenticated")
    assert attempt(stranger, "get", bucket) == attempt(stranger, "show", bucket) == (404, "bucket-not-found")


def test_the_administrator_may_do_everything(database: str, bucket: Bucket) -> None:
    assert allowed(api.administrator(), bucket) == set(OPERATIONS)


@pytest.mark.parametrize("give", ["in general", "for the bucket"])
def test_each_permission_allows_its_own_operations_and_shows_that_the_bucket_exists(
    database: str, bucket: Bucket, give: str
) -> None:
    for number, (permission, operations) in enumerate(GIVES.items()):
        user = api.person(f"user {number}", *([permission] if give == "in general" else []))
        if give == "for the bucket":
            grant(user, permission, bucket)
        assert (permission, allowed(user, bucket)) == (permission, operations)
        assert all(attempt(user, name, bucket)[0] == 403 for name in set(OPERATIONS) - operations)


def test_a_refusal_names_the_permission_that_is_lacking(database: str, bucket: Bucket) -> None:
    visitor = api.person("visitor")
    grant(visitor, "view_bucket", bucket)
    for permission, operations in GIVES.items():
        for name in operations - {"show", "head"}:
            needed = f"This takes the permission django_blobstore.{permission} in general or for this bucket."
            assert (name, send(visitor, name, bucket).json()["detail"]) == (name, needed)


def test_a_permission_for_one_bucket_is_none_for_another(database: str, bucket: Bucket) -> None:
    reader = api.person("reader")
    grant(reader, "view_managedresource", Bucket.objects.create())
    assert allowed(reader, bucket) == set()


def test_the_global_objects_are_for_holders_of_djangos_permissions(database: str, bucket: Bucket) -> None:
    ManagedStorage().put(Namespace(), "there", b"there")
    none, reader = api.person("none"), api.person("reader", "view_managedresource")
    writer = api.person("writer", "add_managedresource")
    url = "/api/global/objects/"
    assert [api.client(user).get(url + "there").status_code for user in (none, reader, writer)] == [403, 200, 403]
    assert [api.client(user).get(url).status_code for user in (none, reader, writer)] == [403, 200, 403]
    assert [api.put(api.client(user), url + "new").status_code for user in (none, reader, writer)] == [403, 403, 201]
    assert [api.put(api.client(user), url + "new").status_code for user in (none, reader, writer)] == [403, 403, 403]
    assert [api.client(user).delete(url + "new").status_code for user in (none, reader, writer)] == [403, 403, 403]


def test_everybody_has_objects_of_their_own_and_nobody_elses(database: str, bucket: Bucket) -> None:
    one, other = api.client(api.person("one")), api.client(api.person("other"))
    url = "/api/me/objects/x"
    assert api.put(one, url, b"one").status_code == 201
    assert other.get(url).status_code == 404
    assert api.put(other, url, b"other").status_code == 201
    assert (b"".join(one.get(url).streaming_content), b"".join(other.get(url).streaming_content)) == (b"one", b"other")
    assert api.client().get(url).status_code == 401


def test_the_reference_count_is_told_to_holders_of_the_permission_only(database: str, bucket: Bucket) -> None:
    def keys(user: User) -> set[str]:
        client = api.client(user)
        put = api.put(client, f"/api/buckets/{bucket.pk}/objects/there", b"there").json()
        listed = client.get(f"/api/buckets/{bucket.pk}/objects/").json()["objects"][0]
        assert set(put) == set(listed)
        return set(put)

    assert bucket.owner
    told = keys(api.person("auditor", "view_resource", "view_managedresource", "change_managedresource"))
    assert told - keys(bucket.owner) == {"reference_count"}


@pytest.mark.parametrize("query", ["", "?name=bucket"])
def test_only_who_may_view_any_bucket_lists_those_of_others(database: str, bucket: Bucket, query: str) -> None:
    def listed(user: User) -> list[str]:
        return [shown["uuid"] for shown in api.client(user).get(f"/api/buckets/{query}").json()["buckets"]]

    assert bucket.owner
    assert listed(bucket.owner) == listed(api.person("auditor", "view_bucket")) == [str(bucket.pk)]
    assert listed(api.person("stranger")) == []


def test_making_a_bucket_needs_the_permission(database: str, bucket: Bucket) -> None:
    made = [
        api.client(user).post("/api/buckets/", {"name": "mine"}, format="json").status_code
        for user in (api.person("none"), api.person("maker", "add_bucket"))
    ]
    assert made == [403, 201]
    assert [bucket.owner.username for bucket in Bucket.objects.filter(name="mine") if bucket.owner] == ["maker"]


def test_a_client_is_told_how_to_authenticate(database: str, bucket: Bucket, storage_kind: str) -> None:
    answer = api.client().get("/api/buckets/")
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, 'Basic realm="api"')


def test_a_session_needs_its_csrf_token_to_write(database: str, bucket: Bucket) -> None:
    user = api.person("user")
    client = api.APIClient(enforce_csrf_checks=True)
    client.force_login(user)
    url = "/api/me/objects/x"
    refused = api.put(client, url, b"csrfmiddlewaretoken=x")
    assert (refused.status_code, refused.json()["code"]) == (403, "permission-denied")
    assert client.get("/api/me/objects/").json()["objects"] == []
    token = "a" * 32
    client.cookies["csrftoken"] = token
    assert api.put(client, url, b"x", HTTP_X_CSRFTOKEN=token).status_code == 201
