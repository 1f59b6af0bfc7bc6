"""Who may do what over HTTP: six kinds of people, and every operation there is, in one table."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from django.contrib.auth.models import Permission, User
from django.urls import URLPattern, URLResolver, resolve
from pytest_django import Settings

from django_blobstore import proof, resumable
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PutRequest, ResumableUpload
from django_blobstore.proof import RequestResponse
from django_blobstore.rest import urls
from tests.conftest import ON_ONE_DATABASE
from tests.invariants import assert_sound
from tests.rest import api, object_permissions
from tests.rest.object_permissions import grant
from tests.stored import Stored
from tests.streams import sha384

THERE = b"there"
OLD = b"old"
ROLES = ("anonymous", "stranger", "reader", "writer", "owner", "staff")
BUCKET = "buckets/{bucket}/"
TUS = {"Tus-Resumable": "1.0.0"}
APPEND = TUS | {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
ASK = {"sha384": sha384(THERE)}


class Operation(NamedTuple):
    """A request, and the status that each of `ROLES` gets for it."""

    method: str
    url: str
    statuses: str
    data: Any = None
    headers: dict[str, str] = {}


VIEW = "401 404 {0} {0} {0} {0}"
WRITE = "401 404 403 {0} {0} {0}"

# What can be done with the objects of a bucket, and likewise with the user's own and with the global ones.
OBJECTS = {
    "list": Operation("GET", "objects/", VIEW.format(200)),
    "search": Operation("GET", f"objects/?sha384={sha384(THERE)}", VIEW.format(200)),
    "get": Operation("GET", "objects/there", VIEW.format(200)),
    "head": Operation("HEAD", "objects/there", VIEW.format(200)),
    "get a range": Operation("GET", "objects/there", VIEW.format(206), headers={"Range": "bytes=1-"}),
    "get what is not there": Operation("GET", "objects/none", VIEW.format(404)),
    "stat many": Operation("POST", "stat", VIEW.format(200), {"paths": ["there", "none"]}),
    "sign": Operation("POST", "sign", VIEW.format(200), {"path": "there"}),
    "put new": Operation("PUT", "objects/new", WRITE.format(201), b"new"),
    "put over": Operation("PUT", "objects/there", WRITE.format(200), b"new"),
    "put if none is there": Operation("PUT", "objects/there", WRITE.format(412), b"", {"If-None-Match": "*"}),
    "delete": Operation("DELETE", "objects/there", WRITE.format(204)),
    "delete what is not there": Operation("DELETE", "objects/none", WRITE.format(404)),
    "delete many": Operation("POST", "delete", WRITE.format(200), {"paths": ["there", "none"]}),
    "describe": Operation("POST", "describe", WRITE.format(200), {"path": "there", "metadata": {"a": "b"}}),
    "copy": Operation("POST", "copy", WRITE.format(201), {"source": "there", "target": "new"}),
    "copy over": Operation("POST", "copy", WRITE.format(200), {"source": "there", "target": "old"}),
    "move": Operation("POST", "move", WRITE.format(201), {"source": "there", "target": "new"}),
    "move over": Operation("POST", "move", WRITE.format(200), {"source": "there", "target": "old"}),
    "ask new": Operation("POST", "put-requests/", WRITE.format(201), ASK | {"path": "new"}),
    "ask over": Operation("POST", "put-requests/", WRITE.format(201), ASK | {"path": "old"}),
}

# A bucket that is nobody's, which "staff" alone can do anything with.
PRIVATE = "{private}"
TARGETS = {
    "ones own": ("me", "401 404 {0} 201 201 201"),
    "everybodys": ("global", "401 404 403 403 403 201"),
    "another bucket": (PRIVATE, "401 404 {1} 404 404 201"),
}
TRANSFERS = {
    f"{what} to {name}": Operation(
        "POST",
        f"{BUCKET}{what}",
        statuses.format(*reader),
        {"source": "there", "target": "new", "target_bucket": target},
    )
    for name, (target, statuses) in TARGETS.items()
    for what, reader in {"copy": (201, 404), "move": (403, 403)}.items()
}

OPERATIONS = {
    **{f"{name} in the bucket": one._replace(url=BUCKET + one.url) for name, one in OBJECTS.items()},
    **TRANSFERS,
    "get by hash": Operation("GET", f"{BUCKET}by-sha384/{sha384(THERE)}", VIEW.format(200)),
    "get by the hash of what is elsewhere": Operation("GET", f"{BUCKET}by-sha384/{sha384(b'x')}", VIEW.format(404)),
    "copy from another bucket": Operation(
        "POST",
        "buckets/{private}/copy",
        "401 404 404 404 404 201",
        {"source": "there", "target": "new", "target_bucket": "{bucket}"},
    ),
    **{
        f"options of an object in {place}": Operation("OPTIONS", f"{place}objects/there", "401 204 204 204 204 204")
        for place in (BUCKET, "me/", "global/")
    },
    "list buckets": Operation("GET", "buckets/", "401 200 200 200 200 200"),
    "make a bucket": Operation("POST", "buckets/", "401 403 403 403 403 201", {"name": "new"}),
    "show the bucket": Operation("GET", BUCKET, "401 404 200 403 200 200"),
    "rename the bucket": Operation("PATCH", BUCKET, "401 404 403 403 200 200", {"name": "new"}),
    "set its quota": Operation("PATCH", BUCKET, "401 404 403 403 403 200", {"quota_bytes": 9}),
    "delete the bucket": Operation("DELETE", BUCKET, "401 404 403 403 409 409"),
    "answer a request": Operation("POST", "put-requests/{request}/", WRITE.format(201), {"proof": "{proof}"}),
    "answer somebody elses request": Operation(
        "POST", "put-requests/{others_request}/", "401 404 404 404 404 404", {"proof": "{proof}"}
    ),
    "discover uploads": Operation("OPTIONS", "uploads/", "401 204 204 204 204 204"),
    "discover an upload": Operation("OPTIONS", "uploads/{upload}/", "401 204 204 204 204 204"),
    "begin an upload": Operation(
        "POST", "uploads/", WRITE.format(201), headers=TUS | {"Upload-Length": "1", "Upload-Metadata": "{target}"}
    ),
    "look at an upload": Operation("HEAD", "uploads/{upload}/", "401 200 200 200 200 200", headers=TUS),
    "go on with an upload": Operation("PATCH", "uploads/{upload}/", WRITE.format(204), b"x", APPEND),
    "end an upload": Operation("DELETE", "uploads/{upload}/", "401 204 204 204 204 204", headers=TUS),
    **{
        f"{what} somebody elses upload": Operation(
            method, "uploads/{others_upload}/", "401 404 404 404 404 404", b"x" if method == "PATCH" else None, APPEND
        )
        for what, method in {"look at": "HEAD", "go on with": "PATCH", "end": "DELETE"}.items()
    },
    "get by a signed URL": Operation("GET", "{signed}", "200 200 200 200 200 200"),
    "head by a signed URL": Operation("HEAD", "{signed}", "200 200 200 200 200 200"),
    "get by a URL signed for something else": Operation("GET", "{signed}x", "403 403 403 403 403 403"),
}


def _likewise(one: Operation, refused: str, url: str) -> Operation:
    """Return `one` elsewhere: whoever is not refused there gets what the owner of the bucket gets."""
    done = one.statuses.split()[ROLES.index("owner")]
    return one._replace(url=url + one.url, statuses=refused.format(done))


for _name, _one in OBJECTS.items():
    OPERATIONS[f"{_name} among ones own"] = _likewise(_one, "401 {0} {0} {0} {0} {0}", "me/")
    OPERATIONS[f"{_name} among everybodys"] = _likewise(_one, "401 403 403 403 403 {0}", "global/")


class People:
    """One user of each kind, and what they do things with, which is the same before each attempt."""

    def __init__(self) -> None:
        self.users = {name: api.person(name) for name in ROLES[1:]}
        self.users["staff"].user_permissions.set(Permission.objects.filter(content_type__app_label="django_blobstore"))
        self.bucket = Bucket.objects.create(owner=self.users["owner"])
        self.private = Bucket.objects.create(name="private")
        for action in ("view", "add", "change", "delete"):
            grant(self.users["writer"], f"{action}_managedresource", self.bucket)
        grant(self.users["reader"], "view_managedresource", self.bucket)
        grant(self.users["reader"], "view_bucket", self.bucket)
        self.home = Namespace(bucket=self.bucket.pk)
        self.namespaces = [self.home, Namespace(bucket=self.private.pk), Namespace()]
        self.namespaces += [Namespace(user=str(user.pk)) for user in self.users.values()]
        self.challenges: list[RequestResponse] = []
        self.reset()

    def reset(self) -> None:
        Bucket.objects.exclude(pk__in=[self.bucket.pk, self.private.pk]).delete()
        Bucket.objects.filter(pk=self.bucket.pk).update(name="bucket", quota_bytes=None)
        PutRequest.objects.all().delete()
        ResumableUpload.objects.all().delete()
        store = ManagedStorage()
        store.remove_all(ManagedResource.objects.exclude(path__in=["there", "old"]))
        hashes = ManagedResource.objects.values_list("bucket", "user", "path", "resource__sha384")
        found = {(bucket, user, path): sha384 for bucket, user, path, sha384 in hashes}
        for namespace in self.namespaces:
            for path, content in {"there": THERE, "old": OLD}.items():
                if found.get((namespace.bucket_id, namespace.user, path)) != sha384(content):
                    store.put(namespace, path, content)
        store.put(Namespace(bucket=self.private.pk), "x", b"x")

    def state(self) -> Any:
        """Return whatever a refused request must leave as it was."""
        objects = ManagedResource.objects.order_by("pk").values_list("pk", "bucket", "user", "path", "resource")
        buckets = Bucket.objects.order_by("pk").values_list("pk", "name", "quota_bytes")
        metadata = [str(one.metadata) for one in ManagedResource.objects.order_by("pk")]
        uploads = list(ResumableUpload.objects.order_by("pk").values_list("pk", "offset"))
        return list(objects), list(buckets), metadata, uploads, PutRequest.objects.count()

    def attempt(self, role: str, one: Operation) -> int:
        """Do `one` as `role` and return the status; a refusal must have changed nothing."""
        user = self.users.get(role)
        facts = {name: make(self, user) for name, make in FACTS.items() if f"{{{name}}}" in repr(one)}
        if "{proof}" in repr(one):
            facts["proof"] = proof.answer(THERE, self.challenges[-1], sha384(THERE)).sha384
        before = self.state()
        answer = _asked(user, one, facts)
        if answer.streaming:
            b"".join(answer.streaming_content)
        if answer.status_code >= 400:
            assert self.state() == before, (role, one)
        elif one.method not in ("GET", "HEAD", "OPTIONS") or facts.keys() & {"request", "upload"}:
            self.reset()
        status: int = answer.status_code
        return status

    def request_of(self, requester: str) -> str:
        self.challenges.append(ManagedStorage().put_request(self.home, "new", sha384(THERE), requester=requester))
        return self.challenges[-1].request_id

    def upload_of(self, requester: str) -> str:
        return resumable.begin(requester, namespace=self.home, path="new", length=1).pk

    def signed(self) -> str:
        url = f"/api/buckets/{self.bucket.pk}/sign"
        answer = api.client(self.users["owner"]).post(url, {"path": "there"}, format="json")
        signed: str = answer.json()["url"]
        return signed.partition("/api/")[2]

    def target(self) -> str:
        return f"path bmV3,bucket {base64.b64encode(str(self.bucket.pk).encode()).decode()}"


def _key(user: User | None) -> str:
    return str(user.pk if user else 0)


# What stands for the names in the table: things of whoever asks, and of somebody else.
FACTS: dict[str, Callable[[People, User | None], str]] = {
    "bucket": lambda people, user: str(people.bucket.pk),
    "private": lambda people, user: str(people.private.pk),
    "request": lambda people, user: people.request_of(_key(user)),
    "others_request": lambda people, user: people.request_of("somebody else"),
    "upload": lambda people, user: people.upload_of(_key(user)),
    "others_upload": lambda people, user: people.upload_of("somebody else"),
    "signed": lambda people, user: people.signed(),
    "target": lambda people, user: people.target(),
}


def _asked(user: User | None, one: Operation, facts: dict[str, str]) -> Any:
    url = "/api/" + one.url.format(**facts)
    client = api.client(user)
    if isinstance(one.data, bytes) or one.headers:
        headers = {name: value.format(**facts) for name, value in one.headers.items()}
        content, kind = one.data or b"", headers.pop("Content-Type", "")
        return client.generic(one.method, url, content, kind, headers=headers, CONTENT_LENGTH=str(len(content)))
    data = one.data and {name: _filled(value, facts) for name, value in one.data.items()}
    return getattr(client, one.method.lower())(url, data, format="json")


def _filled(value: Any, facts: dict[str, str]) -> Any:
    return value.format(**facts) if isinstance(value, str) else value


@pytest.fixture
def people(database: str, stored: Stored, settings: Settings) -> Iterator[People]:
    settings.AUTHENTICATION_BACKENDS = object_permissions.BACKENDS
    yield People()
    object_permissions.granted.clear()


@pytest.mark.parametrize("database", ON_ONE_DATABASE, indirect=True)
@pytest.mark.parametrize("storage_kind", ["memory"])
def test_everybody_gets_what_the_table_says_and_a_refusal_changes_nothing(people: People, stored: Stored) -> None:
    wrong = []
    for name, one in OPERATIONS.items():
        statuses = " ".join(str(people.attempt(role, one)) for role in ROLES)
        if statuses != one.statuses:
            wrong.append(f"{name}: {statuses}, not {one.statuses}")
    assert not wrong, "\n".join(wrong)
    people.reset()
    assert_sound(stored)


def _routes(patterns: list[Any]) -> Iterator[tuple[str, str]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern.url_patterns)
        elif isinstance(pattern, URLPattern):
            methods = getattr(pattern.callback, "actions", {})
            yield from ((str(pattern.name), method.upper()) for method in methods if method != "head")


def test_the_table_has_every_method_of_every_url() -> None:
    known = dict.fromkeys(FACTS, "0") | {"signed": "signed/a/b/c"}
    tried = set()
    for one in OPERATIONS.values():
        path = "/api/" + one.url.format(**known).partition("?")[0]
        tried.add((str(resolve(path).url_name), one.method))
    assert set(_routes(urls.urlpatterns)) - tried == set()
