"""docs/tutorial.md works as it stands, from a fresh project to the store and out again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import pages, projects
from tests.conftest import need
from tests.pictures import png

PAGE = "tutorial.md"

ADD = """
from django.core.files.base import ContentFile
from photos.models import Photo
for title, content in {photos}.items():
    Photo(title=title).image.save(f"{{title}}.png", ContentFile(bytes.fromhex(content)))
"""
TELL = """
import json
from django.core.files.storage import default_storage
from django.test import Client
from photos.models import Photo
told = {}
for photo in Photo.objects.order_by("pk"):
    content = photo.image.read()
    url = photo.image.url
    served = b"".join(Client(headers={"host": "localhost"}).get(url)) == content if "signed" in url else None
    told[photo.title] = [photo.image.name, content.hex(), served]
print(json.dumps([type(default_storage._wrapped).__name__, told]))
"""


def steps() -> Iterator[tuple[str, str]]:
    """Yield for each block that is to be done the file that it goes to, or "" if it is run, and its text."""
    for language, text in pages.blocks(PAGE):
        if language == "python":
            name = text.partition("\n")[0].removeprefix("# ")
            yield name, text
        elif language == "bash":
            yield "", text


class Reader:
    """Somebody who does what the page says, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = projects.start(directory)
        projects.manage(directory, "startapp", "photos")
        self.steps = steps()
        self.said = ""

    def go_on(self, until: str) -> None:
        """Do all up to the block in which `until` stands, and that too."""
        for name, text in self.steps:
            if name:
                projects.append(self.directory / name, f"\n{text}")
            else:
                self.said = projects.run(self.directory, "bash", "-ec", text)
            if until in text:
                return
        raise AssertionError(f"No block has {until!r}.")

    def shell(self, code: str) -> str:
        return projects.manage(self.directory, "shell", "-v", "0", "-c", code)

    def add(self, **photos: bytes) -> None:
        self.shell(ADD.format(photos={title: content.hex() for title, content in photos.items()}))

    def told(self) -> tuple[str, dict[str, Any]]:
        """Return where files are, and of each photo its name, its content, and whether that is served."""
        storage, photos = json.loads(self.shell(TELL))
        return storage, photos

    def blobs(self) -> list[Path]:
        return [path for path in (self.directory / "blobs").rglob("*") if path.is_file()]


def expected(served: bool | None, **photos: bytes) -> dict[str, Any]:
    return {title: [f"photos/{title}.png", content.hex(), served] for title, content in photos.items()}


@pytest.mark.slow
def test_a_reader_of_the_tutorial_gets_in_and_out_with_every_photo(tmp_path: Path) -> None:
    need(shutil.which("sha384sum"), "sha384sum")
    reader = Reader(tmp_path / "site")
    reader.go_on("MEDIA_URL")
    projects.manage(reader.directory, "makemigrations", "photos", "-v", "0")
    projects.manage(reader.directory, "migrate", "-v", "0")
    cats = {"cat": png(1), "again": png(1), "dog": png(2)}
    reader.add(**cats)

    reader.go_on("manage.py check")
    assert "System check identified no issues" in reader.said
    reader.go_on("--dry-run")
    assert reader.blobs() == []
    reader.go_on("--bucket media\n")
    assert len(reader.blobs()) == 2
    reader.add(late=png(3))

    reader.go_on("--keep")
    storage, photos = reader.told()
    assert storage == "BlobStorage"
    assert photos == expected(True, **cats, late=png(3))
    assert len(reader.blobs()) == 3

    reader.go_on("blobstore_audit")
    shutil.rmtree(reader.directory / "media")
    reader.go_on("--percent 5")
    reader.go_on("sha384sum")
    reader.go_on('"exported"')
    storage, photos = reader.told()
    assert storage == "FileSystemStorage"
    assert photos == expected(None, **cats, late=png(3))
    assert list(reader.steps) == []
