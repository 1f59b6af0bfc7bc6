"""What buckets, objects and put requests look like in JSON, and what may be said of them in a request."""

from __future__ import annotations

import base64
import re
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied

from django_blobstore import serving
from django_blobstore.access import holds
from django_blobstore.descriptions import MAX_TYPE_LENGTH
from django_blobstore.digests import clean_hash
from django_blobstore.models import Bucket, ManagedResource
from django_blobstore.namespaces import check_path
from django_blobstore.proof import RequestResponse
from django_blobstore.rest.metadata import checked_metadata
from django_blobstore.rest.paths import absolute_url, object_url
from django_blobstore.rest.quotas import may_see_quota, may_set_quotas

# What a column of both databases can hold.
MAX_BYTES = 2**63 - 1

LISTING_FILTERS = {"sha384", "min_length", "max_length", "modified_since"}

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")

_TIME = serializers.DateTimeField()


class TextField(serializers.CharField):
    """Text, and nothing that would have to be made into text."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class NameField(TextField):
    """A name, without the spaces around it."""

    default_error_messages = {"control": "A name has no control characters."}

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, str) and _CONTROL.search(data):
            self.fail("control")
        return super().to_internal_value(data)


class UUIDField(serializers.UUIDField):
    """A UUID as text, and no number of 128 bits."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class BucketSerializer(serializers.ModelSerializer[Bucket]):
    """A bucket with what is in it; on input a `name`, and a `uuid` if the caller has one.

    Its `quota_bytes` is told to the owner and to who may change any bucket, and set by the latter alone.
    """

    uuid = UUIDField(required=False)
    name = NameField(max_length=150)
    object_count = serializers.IntegerField(read_only=True, default=0)
    logical_bytes = serializers.IntegerField(read_only=True, default=0)
    stored_bytes = serializers.IntegerField(read_only=True, default=0)
    quota_bytes = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=MAX_BYTES)
    url = serializers.SerializerMethodField()

    class Meta:
        model = Bucket
        fields = ["uuid", "name", "owner", "object_count", "logical_bytes", "stored_bytes", "quota_bytes"]
        fields += ["created_at", "url"]
        read_only_fields = ["owner"]

    def get_url(self, bucket: Bucket) -> str:
        return absolute_url(self.context["request"], "bucket-detail", bucket=bucket.pk)

    def validate_quota_bytes(self, quota: int | None) -> int | None:
        if not may_set_quotas(self.context["request"].user):
            raise PermissionDenied("To set a quota takes the permission django_blobstore.change_bucket in general.")
        return quota

    def to_representation(self, bucket: Bucket) -> dict[str, Any]:
        shown = super().to_representation(bucket)
        if not may_see_quota(self.context["request"].user, bucket):
            del shown["quota_bytes"]
        return shown

    def update(self, bucket: Bucket, validated_data: dict[str, Any]) -> Bucket:
        """Rename `bucket` or set its quota; nothing else of it can be changed."""
        changed = {name: value for name, value in validated_data.items() if name in ("name", "quota_bytes")}
        for name, value in changed.items():
            setattr(bucket, name, value)
        bucket.save(update_fields=list(changed))
        return bucket


class ObjectSerializer(serializers.Serializer[ManagedResource]):
    """An object; `integrity` is its SHA-384 as Subresource Integrity writes it."""

    path = serializers.CharField()
    length = serializers.IntegerField()
    sha384 = serializers.CharField()
    integrity = serializers.CharField()
    content_type = serializers.CharField()
    metadata = serializers.DictField()
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
            "metadata": managed.metadata,
            **count,
            "created_at": _TIME.to_representation(managed.created_at),
            "modified_at": _TIME.to_representation(managed.modified_at),
            "url": object_url(self.context["request"], managed.namespace, managed.path),
        }

    @property
    def _may_see_counts(self) -> bool:
        """Whether the user may know of other people's objects."""
        return holds(self.context["request"].user, "view_resource")


class ListingQuery(serializers.Serializer[Any]):
    """What a page of objects is asked for by; more than 1000 entries are refused, not silently cut."""

    prefix = serializers.CharField(default="", allow_blank=True, trim_whitespace=False)
    delimiter = serializers.ChoiceField(choices=["", "/"], default="", allow_blank=True)
    after = serializers.CharField(default="", allow_blank=True, trim_whitespace=False)
    limit = serializers.IntegerField(default=100, min_value=1, max_value=1000)
    sha384 = serializers.RegexField("^[0-9a-fA-F]{96}$", required=False)
    min_length = serializers.IntegerField(required=False, min_value=0, max_value=MAX_BYTES)
    max_length = serializers.IntegerField(required=False, min_value=0, max_value=MAX_BYTES)
    modified_since = serializers.DateTimeField(required=False)

    def validate_sha384(self, sha384: str) -> str:
        return sha384.lower()

    def validate(self, query: dict[str, Any]) -> dict[str, Any]:
        if query["delimiter"] and not LISTING_FILTERS.isdisjoint(query):
            # Whether a folder has what is wanted cannot be told at a bounded cost.
            raise serializers.ValidationError({"delimiter": "Folders cannot be asked for together with a filter."})
        return query


class BucketListQuery(serializers.Serializer[Any]):
    """What a page of buckets is asked for by."""

    name = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False, max_length=150)
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


class ContentTypeField(TextField):
    """A media type, or nothing."""

    default_error_messages = {"no_media_type": "It is a media type, like text/plain, or empty for none."}

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_blank=True, max_length=MAX_TYPE_LENGTH, **options)

    def to_internal_value(self, data: Any) -> str:
        given = super().to_internal_value(data)
        if given and not serving.is_media_type(given):
            self.fail("no_media_type")
        return given


class MetadataField(serializers.DictField):
    """Metadata; a `Problem` says what is wrong with any other."""

    child = serializers.CharField(allow_blank=True, trim_whitespace=False)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        return checked_metadata(data) if isinstance(data, dict) else super().to_internal_value(data)


class PutRequestSerializer(serializers.Serializer[RequestResponse]):
    """A put request: on input what to refer to and where, on output what to prove."""

    path = PathField(write_only=True)
    sha384 = HashField(write_only=True)
    content_type = ContentTypeField(write_only=True, default="")
    metadata = MetadataField(write_only=True, default=dict)
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

    proof = TextField(max_length=200)
