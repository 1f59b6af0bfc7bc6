"""Rows with files: of ours, that belong to them, and Django's own. It is loaded before the models of the package."""

from __future__ import annotations

import uuid

from django.contrib.auth.models import AbstractBaseUser, Group, Permission, PermissionsMixin
from django.core.files.storage import FileSystemStorage
from django.db import models

from django_blobstore.fields import BlobField, BlobImageField
from django_blobstore.storages import BlobStorage
from tests.settings import TEST_DIRECTORY

blobs = BlobStorage(bucket="gallery")
files = FileSystemStorage(location=TEST_DIRECTORY / "gallery")


class Album(models.Model):
    """What photos are in."""

    title = models.CharField(max_length=50)


class Photo(models.Model):
    """A row that owns its image."""

    album = models.ForeignKey(Album, null=True, on_delete=models.CASCADE)
    caption = models.CharField(max_length=50, blank=True)
    place = models.CharField(max_length=50, null=True, unique=True)
    width = models.IntegerField(null=True)
    height = models.IntegerField(null=True)
    image = BlobImageField(upload_to="photos", storage=blobs, blank=True, width_field="width", height_field="height")


class Panorama(Photo):
    """A photo with a row in a second table, and a file there too."""

    sound = BlobField(upload_to="sounds", storage=blobs, blank=True)


class Portrait(Photo):
    """A photo by another name."""

    class Meta:
        proxy = True


class Paper(models.Model):
    """A row with a default file, under a primary key made before it is saved."""

    name = models.CharField(max_length=50, primary_key=True)
    file = BlobField(upload_to="papers", storage=blobs, default="papers/blank.txt")


class Letter(models.Model):
    """A row with Django's own field."""

    file = models.FileField(upload_to="letters", storage=blobs)


class Draft(models.Model):
    """A row that owns a file in a storage without transactions."""

    file = BlobField(upload_to="drafts", storage=files)


class Visitor(AbstractBaseUser, PermissionsMixin):
    """A user as a project may have one: with another kind of key, in a table whose name needs quotes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    groups = models.ManyToManyField(Group, related_name="+")  # type: ignore[assignment]
    user_permissions = models.ManyToManyField(Permission, related_name="+")  # type: ignore[assignment]

    USERNAME_FIELD = "id"

    class Meta:
        managed = False  # no table may refer to one of Django's before those are migrated
        db_table = "Visitors of the gallery"
