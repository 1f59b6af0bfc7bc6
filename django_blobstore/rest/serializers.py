"""What buckets, objects and put requests look like in JSON, and what may be said of them in a request."""

from __future__ import annotations

import base64
from typing import Any

from rest_framework import serializers

from django_blobstore.digests import clean_hash
from django_blobstore.models import Bucket, ManagedResource
from django_blobstore.namespaces import check_path
from django_blobstore.proof import RequestResponse
from django_blobstore.rest.paths import absolute_url, object_url

_TIME = serializers.DateTimeField()


class BucketSerializer(serializers.ModelSerializer[Bucket]):
    """A bucket with what is in it; on input a `name`, and a `uuid` if the caller has one."""

    uuid = serializers.UUIDField(required=False)
    name = serializers.CharField(max_length=150)
    object_count = serializers.IntegerField(read_only=True, default=0)
    logical_bytes = serializers.IntegerField(read_only=True, default=0)
    stored_bytes = serializers.IntegerField(read_only=True, default=0)
    url = serializers.SerializerMethodField()

    class Meta:
        model = Bucket
        fields = ["uuid", "name", "owner", "object_count", "logical_bytes", "stored_bytes", "created_at", "url"]
        read_only_fields = ["owner"]

    def get_url(self, bucket: Bucket) -> str:
        return absolute_url(self.context["request"], "bucket-detail", bucket=bucket.pk)

    def update(self, bucket: Bucket, validated_data: dict[str, Any]) -> Bucket:
        """Rename `bucket`; nothing else of it can be changed."""
        bucket.name = validated_data.get("name", bucket.name)
        bucket.save(update_fields=["name"])
        return bucket


class ObjectSerializer(serializers.Serializer[ManagedResource]):
    """An object; `integrity` is its SHA-384 as Subresource Integrity writes it."""

    path = serializers.CharField()
    length = serializers.IntegerField()
    sha384 = serializers.CharField()
    integrity = serializers.CharField()
    content_type = serializers.CharField()
    reference_count = serializers.IntegerField(required=False)
    created_at = serializers.DateTimeField()
    modified_at = serializers.DateTimeField()
    url = serializers.URLField()

    def to_representation(self, managed: ManagedResource) -> dict[str, Any]:
        """Return what the fields say, without asking each of them: to make them anew takes longer than a query."""
        resource = managed.resource
        count = {"reference_count": resource.reference_count} if self._may_see_counts else {}
        return {
            "path": managed.path,
            "length": resource.length,
            "sha384": resource.sha384,
            "integrity": "sha384-" + base64.b64encode(bytes.fromhex(resource.sha384)).decode(),
            "content_type": managed.content_type,
            **count,
            "created_at": _TIME.to_representation(managed.created_at),
            "modified_at": _TIME.to_representation(managed.modified_at),
            "url": object_url(self.context["request"], managed.namespace, managed.path),
        }

    @property
    def _may_see_counts(self) -> bool:
        """Whether the user may know of other people's objects."""
        return bool(self.context["request"].user.has_perm("django_blobstore.view_resource"))


class ListingQuery(serializers.Serializer[Any]):
    """What a page of objects is asked for by; more than 1000 entries are refused, not silently cut."""

    prefix = serializers.CharField(default="", allow_blank=True, trim_whitespace=False)
    delimiter = serializers.ChoiceField(choices=["", "/"], default="", allow_blank=True)
    after = serializers.CharField(default="", allow_blank=True, trim_whitespace=False)
    limit = serializers.IntegerField(default=100, min_value=1, max_value=1000)


class BucketListQuery(serializers.Serializer[Any]):
    """What a page of buckets is asked for by."""

    after = serializers.UUIDField(default=None, allow_null=True)
    limit = serializers.IntegerField(default=100, min_value=1, max_value=1000)


class PathField(serializers.Field[str, Any, str, Any]):
    """A clean path; any other raises `InvalidPath`."""

    default_error_messages = {"not_text": "A path is text."}

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("not_text")
        return check_path(data)

    def to_representation(self, value: str) -> str:
        return value


class HashField(serializers.Field[str, Any, str, Any]):
    """A SHA-384 in hex; any other raises `InvalidHash`."""

    default_error_messages = {"not_text": "A SHA-384 is text."}

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("not_text")
        return clean_hash(data)

    def to_representation(self, value: str) -> str:
        return value


class PutRequestSerializer(serializers.Serializer[RequestResponse]):
    """A put request: on input what to refer to and where, on output what to prove."""

    path = PathField(write_only=True)
    sha384 = HashField(write_only=True)
    content_type = serializers.CharField(write_only=True, default="", allow_blank=True, max_length=255)
    request_id = serializers.CharField(read_only=True)
    nonce = serializers.SerializerMethodField()
    ranges = serializers.ListField(child=serializers.ListField(child=serializers.IntegerField()), read_only=True)
    range_start = serializers.IntegerField(read_only=True)
    range_length = serializers.IntegerField(read_only=True)
    expires_at = serializers.DateTimeField(read_only=True)
    algorithm = serializers.CharField(read_only=True)

    def get_nonce(self, request: RequestResponse) -> str:
        return base64.b64encode(request.nonce).decode()


class ProofSerializer(serializers.Serializer[Any]):
    """The answer to a put request, in hex."""

    proof = serializers.CharField(max_length=200)
