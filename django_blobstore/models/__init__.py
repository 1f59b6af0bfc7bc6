"""The catalog's tables: what is stored, where it is spoken of, and what is on its way in or out.

Two rules hold at every moment. Each file in a storage is named by exactly one row here, a `Resource` (in use) or a
`PendingFile` (arriving, or to be deleted). And each `Resource` counts the references to it; `django_blobstore.catalog`
is the only module that changes a count.
"""

from django_blobstore.models.arrivals import (
    MeantForNamespace,
    PendingFile,
    PendingFileQuerySet,
    PutRequest,
    PutRequestQuerySet,
    ResumableUpload,
    ResumableUploadQuerySet,
    UploadPart,
    UploadPartQuerySet,
)
from django_blobstore.models.objects import (
    Bucket,
    BucketQuerySet,
    ByteOrderedField,
    Freed,
    InNamespace,
    ManagedResource,
    ManagedResourceQuerySet,
    Resource,
    ResourceQuerySet,
    Totals,
    Usage,
    UsageQuerySet,
    after_prefix,
)
from django_blobstore.models.records import (
    DAYS_KEPT,
    Measurement,
    MeasurementQuerySet,
    Ranking,
    UpkeepRun,
    UpkeepRunQuerySet,
    start_of_day,
)

__all__ = [
    "DAYS_KEPT",
    "Bucket",
    "BucketQuerySet",
    "ByteOrderedField",
    "Freed",
    "InNamespace",
    "ManagedResource",
    "ManagedResourceQuerySet",
    "MeantForNamespace",
    "Measurement",
    "MeasurementQuerySet",
    "PendingFile",
    "PendingFileQuerySet",
    "PutRequest",
    "PutRequestQuerySet",
    "Ranking",
    "Resource",
    "ResourceQuerySet",
    "ResumableUpload",
    "ResumableUploadQuerySet",
    "Totals",
    "UpkeepRun",
    "UpkeepRunQuerySet",
    "UploadPart",
    "UploadPartQuerySet",
    "Usage",
    "UsageQuerySet",
    "after_prefix",
    "start_of_day",
]
