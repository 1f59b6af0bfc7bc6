"""sorl-thumbnail, easy-thumbnails and collectstatic keep what they make in a BlobStorage, in a project as it comes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import pages, projects
from tests.pictures import png

pytestmark = pytest.mark.slow

SETTINGS = """
INSTALLED_APPS += ["photos", "sorl.thumbnail", "easy_thumbnails", "rest_framework", "django_blobstore"]
ALLOWED_HOSTS = ["testserver"]
BLOBSTORE = {"DELETION_GRACE": 0}
SILENCED_SYSTEM_CHECKS = ["templates.W003"]
THUMBNAIL_ALIASES = {"": {"small": {"size": (16, 16), "crop": True}}}
"""
MODELS = """
from django.db import models
from easy_thumbnails.fields import ThumbnailerImageField
from sorl.thumbnail import ImageField

class Sorl(models.Model):
    image = ImageField(upload_to="sorl/")

class Easy(models.Model):
    image = ThumbnailerImageField(upload_to="easy/")
"""
USE = """
import io, json, os, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.template import Context, Template
from django.test import Client
from django_blobstore.models import ManagedResource, Resource
from PIL import Image
from photos.models import Easy, Sorl

content = bytes.fromhex(sys.argv[1])
told = {}
def shown(tags, photo):
    url = Template(tags).render(Context({"photo": photo})).strip().replace("&amp;", "&")
    answer = Client().get(url)
    return [answer.status_code, answer["Content-Type"], Image.open(io.BytesIO(b"".join(answer))).size]
def paths():
    return sorted(ManagedResource.objects.values_list("path", flat=True))
def made(model):
    photo = model()
    photo.image.save("cat.png", ContentFile(content))
    return photo
TAGS = {
    Sorl: "{% load thumbnail %}{% thumbnail photo.image '16x16' crop='center' format='PNG' as im %}"
          "{{ im.url }}{% endthumbnail %}",
    Easy: "{% load thumbnail %}{{ photo.image|thumbnail_url:'small' }}",
}
"""
# Both have a library of tags called "thumbnail", so a project with both names one of them.
LIBRARIES = """
TEMPLATES[0]["OPTIONS"]["libraries"] = {"thumbnail": "%s.templatetags.thumbnail"}
"""
MADE = """
photos = [made({model}), made({model})]
told["shown"] = [shown(TAGS[{model}], photo) for photo in photos]
told["again"] = shown(TAGS[{model}], photos[0])
told["objects"] = ManagedResource.objects.count()
told["contents"] = Resource.objects.count()
{delete}
told["left"] = paths()
print(json.dumps(told))
"""
DELETE = {
    "Sorl": "for photo in photos:\n    from sorl.thumbnail import delete\n    delete(photo.image)",
    "Easy": "for photo in photos:\n    photo.image.delete(save=False)",
}
STATIC = """
DEBUG = False
STATIC_ROOT = BASE_DIR / "none"
STATICFILES_DIRS = [BASE_DIR / "assets"]
INSTALLED_APPS.remove("django.contrib.admin")
"""
LISTED = """
from django.contrib.staticfiles.storage import staticfiles_storage as static
from django_blobstore.models import ManagedResource
print(static.url("css/a.css"), static.open(static.stored_name("css/a.css")).read().decode())
print(*ManagedResource.objects.order_by("path").values_list("path", flat=True))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = projects.start(tmp_path_factory.mktemp("thumbnails"))
    (directory / "photos").mkdir()
    (directory / "photos/__init__.py").touch()
    (directory / "photos/models.py").write_text(MODELS)
    projects.append(directory / "mysite/settings.py", projects.KEPT_IN_A_BUCKET + SETTINGS)
    projects.append(directory / "mysite/urls.py", projects.SERVED_BY_REST)
    projects.manage(directory, "migrate", "--run-syncdb", "-v", "0")
    return directory


def files(project: Path) -> list[Path]:
    return [path for path in (project / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("model", "library", "media_type"),
    [("Sorl", "sorl.thumbnail", "image/png"), ("Easy", "easy_thumbnails", "image/jpeg")],
)
def test_thumbnails_are_made_shown_shared_and_deleted(project: Path, model: str, library: str, media_type: str) -> None:
    projects.append(project / "mysite/settings.py", LIBRARIES % library)
    code = USE + MADE.format(model=model, delete=DELETE[model])
    told: dict[str, Any] = json.loads(projects.run(project, sys.executable, "-c", code, png(5, (64, 48)).hex()))
    assert told["shown"] == [[200, media_type, [16, 16]]] * 2
    assert told["again"] == told["shown"][0]
    # Two images and their thumbnails, and one content of each.
    assert (told["objects"], told["contents"]) == (4, 2)
    assert told["left"] == []
    assert files(project) == []


def test_collectstatic_with_a_manifest_keeps_static_files_in_a_bucket(project: Path) -> None:
    (project / "assets/css").mkdir(parents=True)
    (project / "assets/img").mkdir()
    (project / "assets/css/a.css").write_text("a { background: url('../img/x.png') }")
    (project / "assets/img/x.png").write_bytes(png())
    (project / "mysite/storages.py").write_text(pages.block("filefields.md", "class StaticBlobs"))
    projects.append(project / "mysite/settings.py", STATIC + pages.block("filefields.md", "static.example.org"))
    projects.append(project / "mysite/urls.py", "urlpatterns = urlpatterns[1:]\n")
    first = projects.manage(project, "collectstatic", "--noinput")
    told = projects.manage(project, "shell", "-v", "0", "-c", LISTED).split()
    assert told[0].startswith("https://static.example.org/css/a.")
    assert told[0] != "https://static.example.org/css/a.css"
    assert "x." in told[4]
    again = projects.manage(project, "collectstatic", "--noinput")
    assert "0 static files copied" in again, first
    assert "unmodified" in again
