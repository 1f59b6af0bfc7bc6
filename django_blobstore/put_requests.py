"""Who may refer to stored content without sending it: put requests, and the proofs that answer them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from hmac import compare_digest
from typing import Any

from django.core.files.base import File
from django.db import router
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from django_blobstore import proof
from django_blobstore.catalog import Change, Condition, Content, ResourceCatalog
from django_blobstore.conf import conf
from django_blobstore.errors import (
    BucketNotFound,
    RequestExpired,
    RequestNotFound,
    ResourceDeleted,
    ResourceNotFound,
    ResponseMismatch,
    TooManyFailures,
    UploadPending,
)
from django_blobstore.failpoints import reach
from django_blobstore.models import (
    ManagedResource,
    PendingFile,
    PutRequest,
    PutRequestQuerySet,
    Resource,
    ResourceQuerySet,
    ResumableUpload,
    start_of_day,
)
from django_blobstore.namespaces import Namespace
from django_blobstore.proof import PutResponse, RequestResponse
from django_blobstore.resource_storage import BLOCK_SIZE, ResourceStorage
from django_blobstore.storages.hooks import DamagedFile

FAILURES_A_DAY = 5
REREADS = 3


def issue(
    namespace: Namespace,
    path: str,
    sha384: str,
    *,
    scope: str,
    requester: str,
    readable: QuerySet[ManagedResource] | None,
    content_type: str,
    metadata: Mapping[str, Any],
) -> RequestResponse:
    """Write down a challenge for the content `sha384` of `scope`; no stored byte is read for it.

    The ranges depend on nothing the requester can vary: asking again draws the same ones until an answer was wrong.
    """
    resource = _claimable(scope, sha384, readable)
    failures = known_requests().failed_today(requester, scope, sha384).count()
    if failures >= FAILURES_A_DAY:
        raise TooManyFailures(sha384, _seconds_until_tomorrow())
    algorithm = proof.SEED if conf.PROOF_PROTOCOL == "seed" else proof.HMAC
    seed = proof.sticky_seed(_secret(), requester, scope, sha384, start_of_day().isoformat(), failures)
    request = known_requests().create(
        id=proof.new_request_id(),
        requester=requester,
        bucket_id=namespace.bucket_id,
        bucket_name=namespace.bucket_name,
        user=namespace.user,
        path=path,
        scope=scope,
        sha384=sha384,
        length=resource.length,
        content_type=content_type,
        metadata=dict(metadata),
        algorithm=algorithm,
        nonce=proof.new_nonce(),
        ranges=proof.draw_ranges(resource.length, seed, algorithm=algorithm),
        expires_at=Now() + timedelta(seconds=conf.PROOF_LIFETIME),
    )
    reach("proof.requested")
    request.refresh_from_db()
    return _challenge(request)


def answer(
    catalog: ResourceCatalog,
    put_response: PutResponse,
    requester: str,
    *,
    create_bucket: bool = True,
    condition: Condition | None = None,
) -> Change:
    """Use up the request that `put_response` answers and, if the answer is right, make the reference."""
    if not proof.is_request_id(put_response.request_id):
        raise RequestNotFound(put_response.request_id)
    requests = known_requests().filter(pk=put_response.request_id, requester=requester)
    if not requests.answerable().update(state=PutRequest.State.CLAIMED):
        raise (RequestExpired if requests.exists() else RequestNotFound)(put_response.request_id)
    reach("proof.claimed")
    with _outcome_recorded(requests):
        request = requests.get()
        _check(catalog, request, put_response.sha384)
        reach("proof.checked")
        return _refer(catalog, request, create_bucket, condition)


def known_requests() -> PutRequestQuerySet:
    """Return all put requests, from the database they are written to: a replica may not know the newest yet."""
    return PutRequest.objects.using(router.db_for_write(PutRequest))


@contextmanager
def _outcome_recorded(requests: PutRequestQuerySet) -> Iterator[None]:
    """Set the final state of a claimed request; a fault of ours opens it again."""
    state = PutRequest.State.OPEN
    try:
        yield
        state = PutRequest.State.USED
    except (ResponseMismatch, TooManyFailures):
        state = PutRequest.State.FAILED
        raise
    except ResourceDeleted:
        state = PutRequest.State.USED
        raise
    finally:
        requests.update(state=state)
        reach("proof.recorded")


def _claimable(scope: str, sha384: str, readable: QuerySet[ManagedResource] | None) -> Resource:
    if conf.PROOF_SCOPE == "off":
        raise ResourceNotFound(sha384, "BLOBSTORE['PROOF_SCOPE'] is 'off'; upload the content")
    resource = _resources().filter(scope=scope, sha384=sha384).first()
    if conf.PROOF_SCOPE == "readable" and readable is not None:
        # Somebody else's upload must not show either, so nothing below says "pending" for it.
        if resource is None or not readable.filter(resource=resource).exists():
            raise ResourceNotFound(sha384)
    elif resource is None and _is_arriving(scope, sha384):
        raise UploadPending(sha384)
    if resource and not resource.path:
        raise UploadPending(sha384)
    if resource is None or not resource.is_sound:
        raise ResourceNotFound(sha384)
    return resource


def _resources() -> ResourceQuerySet:
    return Resource.objects.using(router.db_for_write(Resource))


def _is_arriving(scope: str, sha384: str) -> bool:
    files = PendingFile.objects.using(router.db_for_write(PendingFile)).declared(scope, sha384)
    uploads = ResumableUpload.objects.using(router.db_for_write(ResumableUpload)).declared(scope, sha384)
    return files.arriving().exists() or uploads.arriving().exists()


def _check(catalog: ResourceCatalog, request: PutRequest, given: str) -> None:
    failures = known_requests().failed_today(request.requester, request.scope, request.sha384).count()
    if failures >= FAILURES_A_DAY:
        raise TooManyFailures(request.sha384, _seconds_until_tomorrow())
    expected = _expected(catalog, request)
    if not compare_digest(expected.encode(), given.strip().lower().encode(errors="replace")):
        raise ResponseMismatch(request.id)


def _expected(catalog: ResourceCatalog, request: PutRequest) -> str:
    """Return the answer that the stored bytes give. Raises `ResourceDeleted`."""
    cause: OSError | None = None
    for _ in range(REREADS):
        resource = _resources().filter(scope=request.scope, sha384=request.sha384).first()
        if resource is None or not resource.is_sound:
            break
        try:
            return proof.expected(_challenge(request), request.sha384, _contents(resource, request.ranges))
        except (FileNotFoundError, DamagedFile) as error:
            cause, missing = error, isinstance(error, FileNotFoundError)
            if missing:
                ResourceStorage(resource.storage).check_present()
            # Marked, so that the upload which the holder is now asked for heals it; unless it has another file by now.
            if catalog.mark_damaged(resource, missing=missing):
                break
    raise ResourceDeleted(request.sha384) from cause


def _contents(resource: Resource, ranges: list[proof.Range]) -> Iterable[Iterable[bytes]]:
    storage = ResourceStorage(resource.storage)
    if len(ranges) > 1:
        contents = storage.read_ranges(resource.path, ranges)
        return ([_whole(content, length)] for content, (_, length) in zip(contents, ranges, strict=True))
    [(start, length)] = ranges
    return [_blocks(storage.get(resource.path), start, length)]


def _blocks(file: File[bytes], start: int, length: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while length:
            block = _whole(file.read(min(length, BLOCK_SIZE)), 1)
            length -= len(block)
            yield block


def _whole(block: bytes, at_least: int) -> bytes:
    if len(block) < at_least:
        raise DamagedFile("The stored file ends early.")
    return block


def _refer(catalog: ResourceCatalog, request: PutRequest, create_bucket: bool, condition: Condition | None) -> Change:
    content = Content(request.sha384, request.length)
    attributes = {"content_type": request.content_type, "metadata": request.metadata}
    refer = partial(catalog.refer, request.target, request.path, content, scope=request.scope)
    try:
        return refer(attributes=attributes, create_bucket=create_bucket, condition=condition)
    except BucketNotFound:
        raise
    except ResourceNotFound as error:
        raise ResourceDeleted(request.sha384) from error


def _challenge(request: PutRequest) -> RequestResponse:
    ranges = tuple((start, length) for start, length in request.ranges)
    return RequestResponse(
        request_id=request.id,
        range_start=ranges[0][0],
        range_length=ranges[0][1],
        nonce=bytes(request.nonce),
        ranges=ranges,
        length=request.length,
        expires_at=request.expires_at,
        algorithm=request.algorithm,
    )


def _secret() -> bytes:
    return salted_hmac("django_blobstore.proof", "", algorithm="sha384").digest()


def _seconds_until_tomorrow() -> int:
    return int((start_of_day() + timedelta(days=1) - datetime.now(UTC)).total_seconds()) + 1
