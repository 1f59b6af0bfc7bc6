"""Which step follows which in each operation: parse, ask for permission, make one call, respond."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from django.db import IntegrityError, router, transaction
from django.http.response import HttpResponseBase
from django.utils.functional import cached_property
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.utils.urls import replace_query_param
from rest_framework.viewsets import GenericViewSet

from django_blobstore.digests import clean_hash
from django_blobstore.errors import RequestNotFound, ResourceNotFound, UploadPending
from django_blobstore.listing import Wanted, list_page
from django_blobstore.managed import REREADS, ManagedStorage
from django_blobstore.models import Bucket, ManagedResource, PutRequest
from django_blobstore.namespaces import Namespace
from django_blobstore.proof import PutResponse
from django_blobstore.put_requests import known_requests
from django_blobstore.rest import limits, problems
from django_blobstore.rest.body import SmallJSONParser, arriving_content, kept_content_type, unannounced_body
from django_blobstore.rest.conditions import asked_now_and_then, entity_tag, is_conditional, require_as_wanted
from django_blobstore.rest.metadata import sent_metadata
from django_blobstore.rest.paths import absolute_url, object_path
from django_blobstore.rest.permissions import Place, bucket_key, find_bucket, listed_buckets, require
from django_blobstore.rest.problems import Problem
from django_blobstore.rest.quotas import require_room
from django_blobstore.rest.responses import IMMUTABLE, blob_response
from django_blobstore.rest.serializers import (
    LISTING_FILTERS,
    BucketListQuery,
    BucketSerializer,
    ListingQuery,
    ObjectSerializer,
    ProofSerializer,
    PutRequestSerializer,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import User

_REQUEST_ID = re.compile("[A-Za-z0-9_-]{1,22}")


class StoreViewSet(GenericViewSet[Any]):
    """What all our views share, whatever the project's defaults for its own are."""

    permission_classes = [IsAuthenticated]
    parser_classes = [SmallJSONParser]
    renderer_classes: list[type[BaseRenderer]] = [JSONRenderer, BrowsableAPIRenderer]
    pagination_class = None
    versioning_class = None
    filter_backends = []
    # The scope of each action that a project may limit.
    throttle_scopes: Mapping[str, str] = {}

    def get_throttles(self) -> list[BaseThrottle]:
        scope = self.throttle_scopes.get(self.action or "")
        return [*super().get_throttles(), *([limits.ScopeThrottle(scope)] if scope else [])]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        limits.require_short_headers(request._request)
        super().initial(request, *args, **kwargs)
        if request.method in ("POST", "PATCH") and (body := unannounced_body(request._request)):
            # REST framework goes by Content-Length alone, and would find nothing.
            request._stream = cast("BinaryIO", body)

    def get_exception_handler(self) -> Callable[[Exception, Mapping[str, Any]], Response | None]:
        return problems.respond

    def get_authenticate_header(self, request: Request) -> str:
        """Return the first challenge any authenticator has: many clients send credentials only after one."""
        challenges = (authenticator.authenticate_header(request) for authenticator in self.get_authenticators())
        return next(filter(None, challenges), "")

    @property
    def user(self) -> User:
        """Whoever asks; nobody comes here without having been authenticated."""
        return cast("User", self.request.user)

    @property
    def namespace(self) -> Namespace:
        """The namespace that the URL names, whether there is such a bucket or not."""
        if "bucket" in self.kwargs:
            return Namespace(bucket=bucket_key(self.kwargs["bucket"]))
        return Place.of_route(self.user, self.kwargs["route"]).namespace

    @cached_property
    def place(self) -> Place:
        """The namespace that the URL names, for the user who asks."""
        if "bucket" in self.kwargs:
            return Place.of_bucket(self.user, self.kwargs["bucket"])
        return Place.of_route(self.user, self.kwargs["route"])


class BucketViewSet(StoreViewSet):
    """Buckets: create one, list them by UUID, show one with its counts, rename it, delete it when it is empty."""

    serializer_class = BucketSerializer

    def list(self, request: Request) -> Response:
        query = valid(BucketListQuery(data=request.query_params.dict()))
        buckets = listed_buckets(self.user).with_usage().order_by("pk")
        if "name" in query:
            buckets = buckets.filter(name=query["name"])
        if query["after"]:
            buckets = buckets.filter(pk__gt=query["after"])
        found = list(buckets[: query["limit"] + 1])
        shown = found[: query["limit"]]
        after = str(shown[-1].pk) if len(found) > len(shown) else ""
        return Response({"buckets": self.get_serializer(shown, many=True).data, "next": _next_url(request, after)})

    def create(self, request: Request) -> Response:
        require(self.user, "add", "bucket")
        bucket = Bucket(owner=self.user, **valid(self.get_serializer(data=request.data)))
        try:
            with transaction.atomic(router.db_for_write(Bucket)):
                bucket.save(force_insert=True)
        except IntegrityError as error:
            detail = f"There is a bucket {bucket.pk} already."
            raise Problem(409, "bucket-exists", detail, bucket=str(bucket.pk)) from error
        data = self.get_serializer(bucket).data
        return Response(data, status=201, headers={"Location": data["url"]})

    def retrieve(self, request: Request, bucket: str) -> Response:
        found = find_bucket(bucket, Bucket.objects.with_usage())
        require(self.user, "view", "bucket", found)
        return Response(self.get_serializer(found).data)

    def partial_update(self, request: Request, bucket: str) -> Response:
        found = find_bucket(bucket, Bucket.objects.with_usage())
        require(self.user, "change", "bucket", found)
        serializer = self.get_serializer(found, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data)

    def destroy(self, request: Request, bucket: str) -> Response:
        found = find_bucket(bucket)
        require(self.user, "delete", "bucket", found)
        _delete_empty(found)
        return Response(status=204)


class ObjectListViewSet(StoreViewSet):
    """The objects of a namespace, page by page, in byte order of their paths, in folders or flat."""

    serializer_class = ObjectSerializer

    def list(self, request: Request, **kwargs: str) -> Response:
        self.place.require("view")
        query = valid(ListingQuery(data=request.query_params.dict()))
        page = list_page(
            self.place.namespace,
            prefix=query["prefix"],
            after=query["after"],
            limit=query["limit"],
            folders=bool(query["delimiter"]),
            wanted=Wanted(**{name: query[name] for name in LISTING_FILTERS if name in query}),
        )
        objects = self.get_serializer(page.objects, many=True).data
        return Response({"objects": objects, "prefixes": page.prefixes, "next": _next_url(request, page.next_after)})


class JSONWhateverIsAccepted(BaseContentNegotiation):
    """Answers in JSON where the client asks for the type of an object's bytes, which is not up to us."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class ObjectViewSet(StoreViewSet):
    """One object: its raw bytes in and out."""

    serializer_class = ObjectSerializer
    throttle_scopes = {"update": limits.UPLOAD}
    renderer_classes = [JSONRenderer]
    content_negotiation_class = JSONWhateverIsAccepted

    def retrieve(self, request: Request, path: str, **kwargs: str) -> HttpResponseBase:
        path = object_path(request._request, path)
        store = ManagedStorage()
        return _bytes_of(request, store, lambda: self._stat(store, path))

    def _stat(self, store: ManagedStorage, path: str) -> ManagedResource:
        """Return the object at `path` if the user may view it; one query brings it with the bucket that tells."""
        try:
            managed = store.stat(self.namespace, path)
        except (ResourceNotFound, UploadPending):
            self.place.require("view")
            raise
        Place.of_object(self.user, self.kwargs.get("route", "bucket"), managed).require("view")
        return managed

    def update(self, request: Request, path: str, **kwargs: str) -> Response:
        path = object_path(request._request, path)
        content = arriving_content(request._request, path)
        self.place.require_put(path)
        allowed = self.place.put_condition()
        condition = asked_now_and_then(request._request, allowed, self.place.namespace, path)
        require_room(self.place, path, content.length)
        managed = ManagedStorage().put(
            self.place.namespace,
            path,
            content.stream,
            content.length,
            digests=content.digests,
            content_type=content.content_type,
            metadata=sent_metadata(request._request),
            create_bucket=False,
            condition=condition,
        )
        return self._stored_response(managed)

    def destroy(self, request: Request, path: str, **kwargs: str) -> Response:
        path = object_path(request._request, path)
        self.place.require("delete")
        condition = partial(_require_removable, request) if is_conditional(request._request) else None
        ManagedStorage().remove(self.place.namespace, path, condition=condition)
        return Response(status=204)

    def discover(self, request: Request, **kwargs: str) -> Response:
        """Tell what can be asked for: the methods, which every answer has in Allow, and ranges."""
        return Response(status=204, headers={"Accept-Ranges": "bytes"})

    def _stored_response(self, managed: ManagedResource) -> Response:
        return stored_response(self.request, managed)


class ContentViewSet(StoreViewSet):
    """The bytes of a content by its hash, which cannot change (RFC 8246), as long as the bucket refers to it."""

    renderer_classes = [JSONRenderer]
    content_negotiation_class = JSONWhateverIsAccepted

    def retrieve(self, request: Request, sha384: str, **kwargs: str) -> HttpResponseBase:
        sha384 = clean_hash(sha384)
        self.place.require("view")
        return _bytes_of(request, ManagedStorage(), lambda: self._newest_with(sha384), cache_control=IMMUTABLE)

    def _newest_with(self, sha384: str) -> ManagedResource:
        objects = ManagedResource.objects.within(self.place.namespace).filter(resource__sha384=sha384)
        stored = objects.exclude(resource__path="").select_related("resource").order_by("-modified_at")
        found = stored.first()
        if found is None:
            raise ResourceNotFound(sha384)
        return found


class PutRequestViewSet(StoreViewSet):
    """Put requests: ask to refer to content that is stored already, and prove to hold it."""

    serializer_class = PutRequestSerializer
    throttle_scopes = {"create": limits.PROBE}

    def create(self, request: Request, **kwargs: str) -> Response:
        wanted = valid(self.get_serializer(data=request.data))
        self.place.require_put(wanted["path"])
        allowed = self.place.put_condition()
        asked_now_and_then(request._request, allowed, self.place.namespace, wanted["path"])
        challenge = ManagedStorage().put_request(
            self.place.namespace,
            wanted["path"],
            wanted["sha384"],
            requester=str(self.user.pk),
            readable=self.place.readable(),
            content_type=kept_content_type(wanted["content_type"], wanted["path"]),
            metadata=wanted["metadata"],
        )
        url = absolute_url(request._request, "put-request", request_id=challenge.request_id)
        return Response(self.get_serializer(challenge).data, status=201, headers={"Location": url})


class ProofViewSet(StoreViewSet):
    """The answer to a put request."""

    serializer_class = ProofSerializer
    throttle_scopes = {"create": limits.PROOF}

    def create(self, request: Request, request_id: str) -> Response:
        answer = PutResponse(request_id, valid(self.get_serializer(data=request.data))["proof"])
        requester = str(self.user.pk)
        asked = _find_put_request(request_id, requester)
        # The rights may have gone since it was asked for, and the bucket too.
        place = Place.of_namespace(self.user, asked.namespace)
        place.require_put(asked.path)
        condition = asked_now_and_then(request._request, place.put_condition(), place.namespace, asked.path)
        managed = ManagedStorage().proof_of_access_response(
            answer, requester=requester, create_bucket=False, condition=condition
        )
        return stored_response(request, managed)


def _bytes_of(
    request: Request, store: ManagedStorage, find: Callable[[], ManagedResource], **options: str
) -> HttpResponseBase:
    for _ in range(REREADS):
        managed = find()
        with suppress(ResourceNotFound):  # it was replaced, and its bytes swept, before they could be read
            return blob_response(request._request, store, managed, **options)
    raise UploadPending(managed.path)


def _require_removable(request: Request, found: ManagedResource | None) -> None:
    if found:  # what is not there is not found, whatever the condition
        require_as_wanted(request._request, found)


def _find_put_request(request_id: str, requester: str) -> PutRequest:
    found = None
    if _REQUEST_ID.fullmatch(request_id):
        found = known_requests().filter(pk=request_id, requester=requester).first()
    if found is None:
        raise RequestNotFound(request_id)
    return found


def _delete_empty(bucket: Bucket) -> None:
    """Delete `bucket`, or raise a `Problem` if an object is in it or comes into it meanwhile."""
    detail = "There are objects in the bucket; delete them first."
    not_empty = Problem(409, "bucket-not-empty", detail, bucket=str(bucket.pk))
    if bucket.managed_resources.exists():
        raise not_empty
    try:
        with transaction.atomic(router.db_for_write(Bucket)):
            bucket.delete()
    except IntegrityError as error:
        raise not_empty from error


def stored_response(request: Request, managed: ManagedResource) -> Response:
    """Return the answer to a request that put `managed`."""
    data = ObjectSerializer(managed, context={"request": request}).data
    headers = {"Location": data["url"], "ETag": entity_tag(managed)}
    return Response(data, status=201 if managed.was_created else 200, headers=headers)


def valid(serializer: Any) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    data: dict[str, Any] = serializer.validated_data
    return data


def _next_url(request: Request, after: str) -> str | None:
    return replace_query_param(request.build_absolute_uri(), "after", after) if after else None
