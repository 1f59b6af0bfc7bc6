"""Referring to stored content by proof: who may ask, what is asked, and what an answer does."""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.core.files.base import ContentFile
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from pytest_django import Settings

from django_blobstore import proof
from django_blobstore.catalog import ResourceCatalog
from django_blobstore.errors import (
    BlobstoreError,
    BucketNotFound,
    InvalidHash,
    InvalidPath,
    RequestExpired,
    RequestNotFound,
    ResourceDeleted,
    ResourceNotFound,
    ResponseMismatch,
    TooManyFailures,
    UploadPending,
)
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PutRequest, Resource
from django_blobstore.proof import PutResponse, RequestResponse
from tests.invariants import assert_settled, assert_sound
from tests.stored import Stored
from tests.streams import BLOCK, Stream, content_of, sha384
from tests.together import outcomes

CONTENT = content_of(100_000)
HASH = sha384(CONTENT)
HERE = Namespace(bucket="photos")
THERE = Namespace(user="bob")
UNKNOWN = UUID("6f1d3c2a-0b5e-4e0f-8c4d-2a9b7e5f1c33")


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    """A store with one object, at "a" in `HERE`."""
    managed = ManagedStorage()
    managed.put(HERE, "a", CONTENT)
    return managed


def ask(store: ManagedStorage, requester: str = "bob", path: str = "claimed", **options: Any) -> RequestResponse:
    return store.put_request(THERE, path, HASH, requester=requester, **options)


def right(request: RequestResponse, content: bytes = CONTENT) -> PutResponse:
    return proof.answer(content, request, sha384(content))


def wrong(request: RequestResponse) -> PutResponse:
    return PutResponse(request.request_id, "0" * 96)


def give(store: ManagedStorage, response: PutResponse, requester: str = "bob") -> ManagedResource:
    return store.proof_of_access_response(response, requester=requester)


def fail(store: ManagedStorage, times: int, requester: str = "bob") -> None:
    for _ in range(times):
        with pytest.raises(ResponseMismatch):
            give(store, wrong(ask(store, requester)), requester)


def count() -> int:
    return Resource.objects.get(sha384=HASH).reference_count


def claimed() -> bool:
    return ManagedResource.objects.exclude(path="a").exists()


def states() -> list[str]:
    return list(PutRequest.objects.order_by("created_at").values_list("state", flat=True))


def large(length: int = 2**30) -> str:
    """Make a large content known, of which no byte is stored, and return its hash."""
    Resource.objects.create(sha384="ab" * 48, length=length, path="nowhere", storage="blobstore")
    return "ab" * 48


def test_a_right_answer_makes_the_reference_and_moves_no_byte(store: ManagedStorage, stored: Stored) -> None:
    files = stored.names()
    managed = give(store, right(ask(store, content_type="image/png")))
    assert (managed.path, managed.was_created, managed.content_type) == ("claimed", True, "image/png")
    with store.get(THERE, "claimed") as file:
        assert file.read() == CONTENT
    assert (count(), stored.names(), states()) == (2, files, ["used"])
    assert_sound(stored)


def test_a_right_answer_replaces_what_was_there(store: ManagedStorage, stored: Stored) -> None:
    store.put(THERE, "claimed", b"old")
    managed = give(store, right(ask(store)))
    assert not managed.was_created
    assert not Resource.objects.filter(sha384=sha384(b"old")).exists()
    assert_settled(stored)
    assert len(stored.names()) == 1


def test_claiming_what_is_at_the_path_already_counts_nothing(store: ManagedStorage, stored: Stored) -> None:
    for _ in range(2):
        give(store, right(ask(store)))
    assert count() == 2
    assert_sound(stored)


def test_the_names_of_the_seed_do_the_same(store: ManagedStorage) -> None:
    request = store.put_for_bucket_request("music", "claimed", HASH)
    assert store.proof_of_access_response(right(request)).resource.sha384 == HASH
    assert store.get_for_bucket("music", "claimed").read() == CONTENT


def test_a_request_tells_all_that_an_answer_needs(store: ManagedStorage) -> None:
    before = timezone.now()
    request = ask(store)
    after = timezone.now()
    assert (request.range_start, request.range_length) == request.ranges[0] == (0, len(CONTENT))
    assert (request.length, request.algorithm, len(request.nonce)) == (len(CONTENT), "hmac-sha384", 32)
    row = PutRequest.objects.get(pk=request.request_id)
    assert request.expires_at == row.expires_at
    # SQLite cuts its clock off at the millisecond.
    assert before - timedelta(milliseconds=1) <= row.expires_at - timedelta(seconds=60) <= after


def test_asking_reads_no_byte(store: ManagedStorage, stored: Stored) -> None:
    stored.storage.delete(Resource.objects.get().path)
    assert ask(store).ranges == ((0, len(CONTENT)),)


@pytest.mark.parametrize("length", [0, 1, 512 * 1024, 1024 * 1024 + 1])
@pytest.mark.parametrize("protocol", ["hmac", "seed"])
def test_contents_of_any_length_can_be_claimed(
    store: ManagedStorage, settings: Settings, protocol: str, length: int
) -> None:
    settings.BLOBSTORE = {"PROOF_PROTOCOL": protocol}
    content = content_of(length)
    store.put(HERE, "b", content)
    request = store.put_request(THERE, "claimed", sha384(content))
    store.proof_of_access_response(right(request, content))
    assert store.get(THERE, "claimed").read() == content


def test_a_content_above_64_mib_is_claimed_by_samples(store: ManagedStorage) -> None:
    content = BLOCK * 64 + b"more"
    store.put(HERE, "b", content)
    request = store.put_request(THERE, "claimed", sha384(content))
    assert len(request.ranges) == 461
    store.proof_of_access_response(right(request, content))
    assert ManagedResource.objects.get(path="claimed").resource.length == len(content)


def test_a_bucket_that_is_gone_before_the_answer_is_made_anew_unless_it_must_exist(
    store: ManagedStorage, stored: Stored
) -> None:
    request = store.put_request(Namespace("gone"), "claimed", HASH, requester="bob")
    with pytest.raises(BucketNotFound):
        store.proof_of_access_response(right(request), requester="bob", create_bucket=False)
    assert (count(), Bucket.objects.count()) == (1, 1)
    give(store, right(request))
    assert (count(), Bucket.objects.count()) == (2, 2)
    assert_sound(stored)


@pytest.mark.parametrize(("spoken_of", "name"), [("claims", "claims"), (UNKNOWN, ""), (str(UNKNOWN).upper(), "")])
def test_a_bucket_that_a_proof_makes_has_the_name_it_was_asked_for_by(
    store: ManagedStorage, stored: Stored, spoken_of: str | UUID, name: str
) -> None:
    bucket = Namespace(spoken_of)
    store.proof_of_access_response(right(store.put_request(bucket, "claimed", HASH)))
    assert Bucket.objects.get(pk=bucket.bucket_id).name == name
    assert store.get(bucket, "claimed").read() == CONTENT
    assert_sound(stored)


def test_under_the_protocol_of_the_seed_the_answer_is_the_plain_hash_of_the_range(
    store: ManagedStorage, settings: Settings
) -> None:
    settings.BLOBSTORE = {"PROOF_PROTOCOL": "seed"}
    request = ask(store)
    assert request.range_length < len(CONTENT)
    piece = CONTENT[request.range_start : request.range_start + request.range_length]
    give(store, PutResponse(request.request_id, sha384(piece)))
    assert count() == 2


def test_the_hash_of_the_content_is_no_answer(store: ManagedStorage, settings: Settings) -> None:
    for protocol in ("hmac", "seed"):
        settings.BLOBSTORE = {"PROOF_PROTOCOL": protocol}
        with pytest.raises(ResponseMismatch):
            give(store, PutResponse(ask(store).request_id, HASH))
    assert not claimed()


def test_an_answer_may_be_spelled_in_capitals(store: ManagedStorage) -> None:
    response = right(ask(store))
    give(store, PutResponse(response.request_id, f" {response.sha384.upper()}\n"))
    assert count() == 2


@pytest.mark.parametrize("given", ["", "0" * 96, "x", "é" * 96, chr(0xD800), "\0", "0" * 100_000])
def test_a_wrong_answer_adds_nothing_and_uses_the_request_up(store: ManagedStorage, stored: Stored, given: str) -> None:
    request = ask(store)
    with pytest.raises(ResponseMismatch) as raised:
        give(store, PutResponse(request.request_id, given))
    assert raised.value.request_id == request.request_id
    assert (count(), claimed(), states()) == (1, False, ["failed"])
    with pytest.raises(RequestExpired):
        give(store, right(request))
    assert_sound(stored)


def test_an_answer_to_another_request_is_wrong(store: ManagedStorage) -> None:
    first, second = ask(store), ask(store)
    with pytest.raises(ResponseMismatch):
        give(store, PutResponse(second.request_id, right(first).sha384))
    give(store, right(first))


def test_the_same_ranges_are_asked_for_wherever_they_are_to_go(store: ManagedStorage) -> None:
    sha384 = large()
    first = store.put_request(THERE, "claimed", sha384, requester="bob")
    for namespace, path in ((THERE, "claimed"), (THERE, "other"), (HERE, "other"), (Namespace(), "x")):
        again = store.put_request(namespace, path, sha384, requester="bob")
        assert again.ranges == first.ranges
        assert again.nonce != first.nonce
        assert again.request_id != first.request_id
    assert store.put_request(THERE, "claimed", sha384, requester="carol").ranges != first.ranges


@pytest.mark.parametrize("protocol", ["hmac", "seed"])
def test_only_a_failure_draws_other_ranges(store: ManagedStorage, settings: Settings, protocol: str) -> None:
    settings.BLOBSTORE = {"PROOF_PROTOCOL": protocol}
    sha384 = large()
    first = store.put_request(THERE, "claimed", sha384, requester="bob")
    PutRequest.objects.filter(pk=first.request_id).update(state=PutRequest.State.USED)
    assert store.put_request(THERE, "claimed", sha384, requester="bob").ranges == first.ranges
    PutRequest.objects.filter(pk=first.request_id).update(state=PutRequest.State.FAILED)
    assert store.put_request(THERE, "claimed", sha384, requester="bob").ranges != first.ranges


def test_a_request_past_its_time_by_the_clock_of_the_database_has_expired(store: ManagedStorage) -> None:
    request = ask(store)
    PutRequest.objects.update(expires_at=Now() - timedelta(seconds=1))
    with pytest.raises(RequestExpired) as raised:
        give(store, right(request))
    assert not isinstance(raised.value, RequestNotFound)
    assert (count(), claimed()) == (1, False)


def test_a_request_is_answered_once(store: ManagedStorage) -> None:
    request = ask(store)
    give(store, right(request))
    store.remove(THERE, "claimed")
    with pytest.raises(RequestExpired):
        give(store, right(request))
    assert (count(), claimed()) == (1, False)


def test_of_many_who_answer_one_request_at_once_one_succeeds(store: ManagedStorage, stored: Stored) -> None:
    response = right(ask(store))
    done = outcomes(*[lambda: give(store, response)] * 8)
    assert sorted(type(one).__name__ for one in done) == ["ManagedResource"] + ["RequestExpired"] * 7
    assert count() == 2
    assert_sound(stored)


def test_a_stranger_finds_no_request_and_burns_nothing(store: ManagedStorage) -> None:
    request = ask(store)
    for stranger in ("carol", "", "BOB"):
        with pytest.raises(RequestNotFound):
            give(store, wrong(request), stranger)
    assert states() == ["open"]
    give(store, right(request))


@pytest.mark.parametrize("id", ["", "nope", "\0", chr(0xD800), "x" * 10_000, "é"])
def test_an_id_nobody_gave_out_is_not_found(store: ManagedStorage, id: str) -> None:
    with pytest.raises(RequestNotFound) as raised:
        give(store, PutResponse(id, "0" * 96))
    assert raised.value.request_id == id


def test_after_five_failures_a_day_one_may_neither_ask_nor_answer(store: ManagedStorage) -> None:
    early = ask(store)
    fail(store, 5)
    with pytest.raises(TooManyFailures) as raised:
        ask(store)
    assert 0 < raised.value.retry_after <= 86_400
    with pytest.raises(TooManyFailures):
        give(store, right(early))
    assert (count(), claimed()) == (1, False)


def test_failures_count_for_one_requester_one_content_and_one_day(store: ManagedStorage) -> None:
    store.put(HERE, "b", b"other")
    fail(store, 5)
    give(store, right(ask(store, "carol")), "carol")
    store.put_request(THERE, "claimed", sha384(b"other"), requester="bob")
    PutRequest.objects.update(created_at=F("created_at") - timedelta(days=1))
    give(store, right(ask(store)))
    assert count() == 2


def test_content_removed_before_the_answer_is_told_as_deleted(store: ManagedStorage, stored: Stored) -> None:
    request = ask(store)
    store.remove(HERE, "a")
    with pytest.raises(ResourceDeleted) as raised:
        give(store, right(request))
    assert raised.value.sha384 == HASH
    assert not Resource.objects.exists()
    assert not claimed()
    assert_settled(stored)
    assert stored.names() == set()


def test_content_removed_and_put_again_can_be_answered_for(store: ManagedStorage, stored: Stored) -> None:
    request = ask(store)
    store.remove(HERE, "a")
    store.put(HERE, "again", CONTENT)
    give(store, right(request))
    assert count() == 2
    assert_settled(stored)


@pytest.mark.parametrize("left", [None, CONTENT[:-1]], ids=["missing", "truncated"])
def test_content_whose_bytes_are_lost_is_never_the_holders_failure(
    store: ManagedStorage, stored: Stored, left: bytes | None
) -> None:
    request = ask(store)
    path = Resource.objects.get().path
    stored.storage.delete(path)
    if left is not None:
        stored.storage.save(path, ContentFile(left))
    with pytest.raises(ResourceDeleted):
        give(store, right(request))
    assert (count(), claimed(), states()) == (1, False, ["used"])
    store.put(THERE, "claimed", CONTENT)
    assert store.get(HERE, "a").read() == CONTENT
    assert_settled(stored)


def test_a_large_content_that_ends_early_is_never_the_holders_failure(store: ManagedStorage, stored: Stored) -> None:
    sha384 = large()
    stored.storage.save("nowhere", ContentFile(CONTENT))
    request = store.put_request(THERE, "claimed", sha384, requester="bob")
    with pytest.raises(ResourceDeleted):
        give(store, wrong(request))
    assert Resource.objects.get(sha384=sha384).damaged_at is not None
    assert (claimed(), states()) == (False, ["used"])


def test_damaged_content_is_not_there_for_the_asking(store: ManagedStorage) -> None:
    request = ask(store)
    Resource.objects.update(damaged_at=Now())
    with pytest.raises(ResourceNotFound):
        ask(store)
    with pytest.raises(ResourceDeleted):
        give(store, right(request))
    assert (count(), claimed()) == (1, False)


def test_unknown_content_is_not_found_and_leaves_no_request(store: ManagedStorage) -> None:
    with pytest.raises(ResourceNotFound):
        store.put_request(THERE, "claimed", "ab" * 48)
    assert not PutRequest.objects.exists()


@pytest.mark.parametrize(
    ("path", "sha384", "error"), [("../a", HASH, InvalidPath), ("", HASH, InvalidPath), ("a", "xyz", InvalidHash)]
)
def test_a_request_that_makes_no_sense_is_refused(
    store: ManagedStorage, path: str, sha384: str, error: type[BlobstoreError]
) -> None:
    with pytest.raises(error):
        store.put_request(THERE, path, sha384)
    assert not PutRequest.objects.exists()


def test_content_that_is_arriving_is_pending(store: ManagedStorage) -> None:
    arriving, found = content_of(3_000_000, 1), []

    def look() -> None:
        with pytest.raises(UploadPending) as raised:
            store.put_request(THERE, "claimed", sha384(arriving))
        found.append(raised.value.retry_after)

    store.put(HERE, "b", Stream(arriving, {2_000_000: look}), check_hash=sha384(arriving))
    assert found == [5]
    assert store.put_request(THERE, "claimed", sha384(arriving)).length == 3_000_000


def test_content_that_a_catalog_caller_has_not_uploaded_is_pending(store: ManagedStorage) -> None:
    ResourceCatalog().put("ab" * 48, 10)
    with pytest.raises(UploadPending):
        store.put_request(THERE, "claimed", "ab" * 48)


def test_with_proofs_switched_off_nothing_is_there_for_the_asking(store: ManagedStorage, settings: Settings) -> None:
    settings.BLOBSTORE = {"PROOF_SCOPE": "off"}
    with pytest.raises(ResourceNotFound, match="PROOF_SCOPE"):
        ask(store)


def test_one_may_claim_only_what_one_may_read_where_that_is_set(store: ManagedStorage, settings: Settings) -> None:
    settings.BLOBSTORE = {"PROOF_SCOPE": "readable"}
    objects = ManagedResource.objects
    with pytest.raises(ResourceNotFound):
        ask(store, readable=objects.within(THERE))
    give(store, right(ask(store, readable=objects.within(HERE))))
    give(store, right(ask(store, path="of a caller who may read all")))
    assert count() == 3


def test_somebody_elses_upload_does_not_show_where_one_may_claim_only_what_one_reads(
    store: ManagedStorage, settings: Settings
) -> None:
    settings.BLOBSTORE = {"PROOF_SCOPE": "readable"}
    arriving, seen = content_of(3_000_000, 1), []

    def look() -> None:
        with pytest.raises(ResourceNotFound):
            store.put_request(THERE, "claimed", sha384(arriving), readable=ManagedResource.objects.none())
        seen.append(True)

    store.put(HERE, "b", Stream(arriving, {2_000_000: look}), check_hash=sha384(arriving))
    assert seen == [True]


def users(*names: str) -> Iterable[Any]:
    return [get_user_model().objects.create(username=name) for name in names]


def test_content_of_another_bucket_cannot_be_claimed_where_buckets_do_not_share(
    store: ManagedStorage, settings: Settings, stored: Stored
) -> None:
    settings.BLOBSTORE = {"DEDUP_SCOPE": "bucket"}
    store.put_for_bucket("mine", "a", CONTENT)
    with pytest.raises(ResourceNotFound):
        store.put_for_bucket_request("other", "b", HASH)
    store.proof_of_access_response(right(store.put_for_bucket_request("mine", "b", HASH)))
    assert Resource.objects.get(scope__startswith="bucket:").reference_count == 2
    assert_sound(stored)


def test_content_of_another_owner_cannot_be_claimed_where_owners_do_not_share(
    store: ManagedStorage, settings: Settings, stored: Stored
) -> None:
    settings.BLOBSTORE = {"DEDUP_SCOPE": "owner"}
    alice, bob = users("alice", "bob")
    hers, hers_too, his = (Bucket.objects.create(owner=owner).pk for owner in (alice, alice, bob))
    store.put_for_bucket(hers, "a", CONTENT)
    with pytest.raises(ResourceNotFound):
        store.put_for_bucket_request(his, "b", HASH)
    store.proof_of_access_response(right(store.put_for_bucket_request(hers_too, "b", HASH)))
    assert Resource.objects.get(scope=f"user:{alice.pk}").reference_count == 2
    assert_sound(stored)


def test_failures_in_one_scope_do_not_count_in_another(store: ManagedStorage, settings: Settings) -> None:
    fail(store, 5)
    settings.BLOBSTORE = {"DEDUP_SCOPE": "bucket"}
    store.put_for_bucket("mine", "a", CONTENT)
    request = store.put_request(Namespace(bucket="mine"), "b", HASH, requester="bob")
    give(store, right(request))
    assert Resource.objects.get(scope__startswith="bucket:").reference_count == 2


def test_a_fault_of_the_storage_leaves_the_request_to_be_answered_again(
    store: ManagedStorage, settings: Settings
) -> None:
    request, storages = ask(store), settings.STORAGES
    settings.STORAGES = {name: storages[name] for name in storages if name != "blobstore"}
    with pytest.raises(Exception, match="blobstore"):
        give(store, right(request))
    assert (count(), claimed(), states()) == (1, False, ["open"])
    settings.STORAGES = storages
    give(store, right(request))


def test_a_stream_is_answered_for_as_well_as_bytes(store: ManagedStorage) -> None:
    request = ask(store)
    assert proof.answer(io.BytesIO(CONTENT), request, HASH) == right(request)
