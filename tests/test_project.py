"""A stock project, as `startproject` makes it, keeps its images in the store after a change of its settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import projects
from tests.conftest import need
from tests.pictures import png

MODELS = """
from django.db import models

class Photo(models.Model):
    title = models.CharField(max_length=50)
    image = models.ImageField(upload_to="photos/", width_field="width", height_field="height")
    width = models.IntegerField(null=True, editable=False)
    height = models.IntegerField(null=True, editable=False)
"""
ADMIN = """
from django.contrib import admin
from photos.models import Photo
admin.site.register(Photo)
"""
INSTALLED = """
INSTALLED_APPS += ["photos"]
ALLOWED_HOSTS = ["testserver"]
MEDIA_ROOT = BASE_DIR / "media"
"""
# What a project adds by docs/filefields.md: the app, and one setting.
SWITCHED = projects.KEPT_IN_A_BUCKET + 'INSTALLED_APPS += ["rest_framework", "django_blobstore"]\n'

# The same before and after: through the admin, a ModelForm and the model, what a site does with its images.
USE = """
import json, os, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.forms import modelform_factory
from django.test import Client
from photos.models import Photo

content = bytes.fromhex(sys.argv[1])
def upload(name): return SimpleUploadedFile(name, content, "image/png")

User.objects.create_superuser("admin", password="x")
client = Client()
client.login(username="admin", password="x")
told = {}
answer = client.post("/admin/photos/photo/add/", {"title": "by admin", "image": upload("cat.png")})
told["admin"] = answer.status_code
form = modelform_factory(Photo, fields=["title", "image"])({"title": "by form"}, {"image": upload("dog.png")})
told["valid"] = form.is_valid()
form.save()
bad = modelform_factory(Photo, fields=["title", "image"])({"title": "x"}, {"image": SimpleUploadedFile("x.png", b"no")})
told["refused"] = not bad.is_valid()
told["photos"] = [[p.title, p.image.name, p.width, p.height, p.image.size] for p in Photo.objects.order_by("pk")]
photo = Photo.objects.order_by("pk")[0]
told["same"] = photo.image.read() == content
page = client.get(f"/admin/photos/photo/{photo.pk}/change/").content.decode()
told["linked"] = photo.image.url.replace("&", "&amp;") in page
if "/signed/" in photo.image.url:
    answer = Client().get(photo.image.url)
    told["served"] = [answer.status_code, answer["Content-Type"], b"".join(answer) == content]
answer = client.post(f"/admin/photos/photo/{photo.pk}/change/", {"title": "changed", "image": upload("bird.png")})
told["changed"] = [answer.status_code, Photo.objects.get(pk=photo.pk).image.name]
try:
    with transaction.atomic():
        Photo.objects.create(title="lost", image=upload("lost.png"))
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
told["lost"] = default_storage.exists("photos/lost.png")
told["listed"] = sorted(default_storage.listdir("photos")[1])
print(json.dumps(told))
"""

ROLLED_BACK = (
    USE.partition("User.objects")[0]
    + """
try:
    with transaction.atomic():
        Photo.objects.create(title="lost", image=upload("new.png"))
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
"""
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    projects.start(tmp_path)
    projects.manage(tmp_path, "startapp", "photos")
    (tmp_path / "photos/models.py").write_text(MODELS)
    (tmp_path / "photos/admin.py").write_text(ADMIN)
    projects.append(tmp_path / "mysite/settings.py", INSTALLED)
    projects.manage(tmp_path, "makemigrations", "photos")
    return tmp_path


def files(project: Path) -> list[Path]:
    """Return the files that the store of `project` keeps."""
    return [path for path in (project / "blobs").rglob("*") if path.is_file()]


def used(project: Path) -> dict[str, Any]:
    projects.manage(project, "migrate", "-v", "0")
    told: dict[str, Any] = json.loads(projects.run(project, sys.executable, "-c", USE, png(7).hex()).splitlines()[-1])
    return told


def switch(project: Path) -> None:
    projects.append(project / "mysite/settings.py", SWITCHED)
    projects.append(project / "mysite/urls.py", projects.SERVED_BY_REST)


def test_a_stock_project_switches_by_one_setting_keeps_working_and_leaves_no_file_of_a_rollback(project: Path) -> None:
    need(png(), "Pillow")
    before = used(project)
    (project / "db.sqlite3").unlink()
    switch(project)
    after = used(project)
    assert after.pop("served") == [200, "image/png", True]
    # A rolled-back save leaves its file in a folder, and none in the store.
    assert (before.pop("lost"), after.pop("lost")) == (True, False)
    before["listed"].remove("lost.png")
    assert after == before
    assert after["photos"][0] == ["by admin", "photos/cat.png", 4, 3, len(png(7))]
    assert after["changed"] == [302, "photos/bird.png"]
    assert len(files(project)) == 1
    assert projects.manage(project, "makemigrations", "--check", "--dry-run").strip() == "No changes detected"
    projects.run(project, sys.executable, "-c", ROLLED_BACK, png(8).hex())
    assert len(files(project)) > 1
    projects.manage(project, "blobstore_sweep")
    assert len(files(project)) == 1, "a rollback leaves no file of new content after a sweep"
