"""The Django admin edge: which page each table gets."""

from __future__ import annotations

from django.contrib import admin

from django_blobstore.admin.buckets import BucketAdmin
from django_blobstore.admin.dashboard import DashboardAdmin
from django_blobstore.admin.objects import ManagedResourceAdmin
from django_blobstore.admin.operation import PendingFileAdmin, PutRequestAdmin
from django_blobstore.admin.resources import ResourceAdmin
from django_blobstore.admin.upkeep import UpkeepRunAdmin
from django_blobstore.models import Bucket, ManagedResource, Measurement, PendingFile, PutRequest, Resource, UpkeepRun

admin.site.register(Bucket, BucketAdmin)
admin.site.register(ManagedResource, ManagedResourceAdmin)
admin.site.register(Resource, ResourceAdmin)
admin.site.register(PutRequest, PutRequestAdmin)
admin.site.register(PendingFile, PendingFileAdmin)
admin.site.register(Measurement, DashboardAdmin)
admin.site.register(UpkeepRun, UpkeepRunAdmin)
