"""Where content is not shared by all, nothing that is answered depends on what others have stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from django_blobstore import proof
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PutRequest, Resource, ResumableUpload
from tests.conftest import ON_ONE_DATABASE
from tests.invariants import assert_sound
from tests.rest import api
from tests.rest.test_permission_matrix import OBJECTS, OLD, THERE
from tests.rest.test_tus import target
from tests.stored import Stored
from tests.streams import sha384

# What is asked here is what the views tell, and not of which database.
pytestmark = [
    pytest.mark.parametrize("storage_kind", ["memory"]),
    pytest.mark.parametrize("database", ON_ONE_DATABASE, indirect=True),
]

SECRET = b"only others have it"
CONTENTS = {"there": THERE, "old": OLD}
# What is new each time, whoever else has anything.
CHANGING = {"request_id", "nonce", "expires_at", "created_at", "modified_at", "url"}
CHANGING_HEADERS = {"Location", "Last-Modified", "Upload-Expires"}


class Tenant:
    """The owner of a bucket, who has it, and objects of their own, to themselves."""

    def __init__(self) -> None:
        self.user = api.person("tenant")
        self.bucket = Bucket.objects.create(name="bucket", owner=self.user, quota_bytes=1000)
        self.others = Bucket.objects.create(name="bucket", owner=api.person("other"), quota_bytes=1000)

    def begin(self) -> None:
        """Have all that is theirs as it was."""
        # Anew, since a user remembers what they may.
        self.client = api.client(User.objects.get(pk=self.user.pk))
        PutRequest.objects.all().delete()
        ResumableUpload.objects.all().delete()
        store = ManagedStorage()
        for namespace in (Namespace(self.bucket.pk), Namespace(user=str(self.user.pk))):
            store.remove_all(ManagedResource.objects.within(namespace))
            for path, content in CONTENTS.items():
                store.put(namespace, path, content)

    def have_neighbours(self) -> None:
        """Have other tenants store the same, and more."""
        for namespace in (Namespace(self.others.pk), Namespace(user=str(self.others.owner_id)), Namespace()):
            for path, content in {**CONTENTS, "new": b"new", "secret": SECRET}.items():
                ManagedStorage().put(namespace, path, content)

    def transcript(self, database: str) -> dict[str, Any]:
        """Return what each operation tells, and how many statements it takes, which stand for its time."""
        transcript = {}
        for name, operation in OPERATIONS.items():
            self.begin()
            with CaptureQueriesContext(connections[database]) as queries:
                said = told(operation(self))
            transcript[name] = (*said, len(queries))
        return transcript

    def ask(self, method: str, url: str, data: Any = None, **headers: str) -> Any:
        url = f"/api/{url}" if url.startswith(("me/", "uploads/")) else f"/api/buckets/{self.bucket.pk}/{url}"
        if data is None or isinstance(data, bytes):
            content, kind = data or b"", headers.pop("Content-Type", "")
            length = str(len(content))
            return self.client.generic(method, url, content, kind, headers=headers, CONTENT_LENGTH=length)
        return self.client.post(url, data, format="json", headers=headers)

    def prove(self) -> Any:
        store = ManagedStorage()
        asked = store.put_request(Namespace(self.bucket.pk), "new", sha384(THERE), requester=str(self.user.pk))
        answer = {"proof": proof.answer(THERE, asked, sha384(THERE)).sha384}
        return self.client.post(f"/api/put-requests/{asked.request_id}/", answer, format="json")

    def upload(self, content: bytes, **said: str) -> Any:
        metadata = target(self.bucket, "new", **said)
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(content)), "Upload-Metadata": metadata}
        return self.ask("POST", "uploads/", content, **headers, **{"Content-Type": "application/offset+octet-stream"})

    def elsewhere(self, what: str) -> Any:
        return self.ask("POST", what, {"source": "there", "target": "new", "target_bucket": "me"})


def _put(content: bytes, path: str = "new", **headers: str) -> Callable[[Tenant], Any]:
    return lambda tenant: tenant.ask("PUT", f"objects/{path}", content, **headers)


def _ask(content: bytes) -> Callable[[Tenant], Any]:
    return lambda tenant: tenant.ask("POST", "put-requests/", {"path": "new", "sha384": sha384(content)})


def _get(url: str) -> Callable[[Tenant], Any]:
    return lambda tenant: tenant.ask("GET", url)


OPERATIONS: dict[str, Callable[[Tenant], Any]] = {
    **{
        name: lambda tenant, one=one: tenant.ask(one.method, one.url, one.data, **one.headers)
        for name, one in OBJECTS.items()
    },
    "put what others have": _put(SECRET),
    "put what others have over": _put(SECRET, "there"),
    "put what others have with its hash": _put(SECRET, **{"X-Content-SHA384": sha384(SECRET)}),
    "put something else with the hash of what others have": _put(b"x", **{"X-Content-SHA384": sha384(SECRET)}),
    "put too much": _put(bytes(1001)),
    "put more than fits": _put(bytes(999)),
    "ask for what others have": _ask(SECRET),
    "ask for what nobody has": _ask(b"nobody has it"),
    "search for what others have": _get(f"objects/?sha384={sha384(SECRET)}"),
    "search for what one has": _get(f"objects/?sha384={sha384(THERE)}&limit=1"),
    "search by length": _get("objects/?min_length=1&modified_since=2000-01-01T00:00:00Z"),
    "list folders": _get("objects/?delimiter=/"),
    "get by hash what others have": _get(f"by-sha384/{sha384(SECRET)}"),
    "get by hash what one has": _get(f"by-sha384/{sha384(THERE)}"),
    "get ones own": _get("me/objects/there"),
    "stat what others have": lambda tenant: tenant.ask("POST", "stat", {"paths": ["secret", "there", "new"]}),
    "sign for the hash of what others have": lambda tenant: tenant.ask(
        "POST", "sign", {"path": "there", "sha384": sha384(SECRET)}
    ),
    "show the bucket": _get(""),
    "answer a request": Tenant.prove,
    "upload what others have": lambda tenant: tenant.upload(SECRET),
    "upload what others have with its hash": lambda tenant: tenant.upload(SECRET, sha384=sha384(SECRET)),
    "upload something else with its hash": lambda tenant: tenant.upload(b"x", sha384=sha384(SECRET)),
    "copy elsewhere": lambda tenant: tenant.elsewhere("copy"),
    "move elsewhere": lambda tenant: tenant.elsewhere("move"),
}


def told(answer: Any) -> tuple[int, dict[str, str], Any]:
    """Return everything in `answer` that is the same each time."""
    headers = {name: value for name, value in answer.headers.items() if name not in CHANGING_HEADERS}
    if answer.streaming:
        return answer.status_code, headers, b"".join(answer.streaming_content)
    is_json = answer.get("Content-Type", "").endswith("json") and answer.content
    if is_json:
        headers.pop("Content-Length", None)
    return answer.status_code, headers, _unchanging(answer.json()) if is_json else answer.content


def _unchanging(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unchanging(one) for key, one in value.items() if key not in CHANGING}
    return [_unchanging(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("scope", ["owner", "bucket"])
def test_no_operation_tells_what_others_have(database: str, stored: Stored, settings: Settings, scope: str) -> None:
    settings.BLOBSTORE = settings.BLOBSTORE | {"DEDUP_SCOPE": scope}
    tenant = Tenant()
    alone = tenant.transcript(database)
    tenant.have_neighbours()
    assert tenant.transcript(database) == alone
    assert Resource.objects.filter(sha384=sha384(SECRET)).exists()
    assert_sound(stored)


def test_where_all_share_content_some_operation_does_tell(database: str, stored: Stored) -> None:
    tenant, seen = Tenant(), []
    for happen in (tenant.begin, tenant.have_neighbours):
        happen()
        tenant.begin()
        seen.append(told(OPERATIONS["ask for what others have"](tenant))[0])
    assert seen == [404, 201]
