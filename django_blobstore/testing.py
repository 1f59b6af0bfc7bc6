"""What a Django storage must do for FileFields, and for the store: tests that any project can run against its own.

Mix them into a test case and name the storage by its alias in ``STORAGES``::

    class MediaTests(StorageContract, BytesContract, TestCase):
        alias = "default"

They need no pytest, and leave nothing in the storage.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias
from unittest import TestCase

from django.conf import settings
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage, storages
from django.core.files.uploadedfile import InMemoryUploadedFile, SimpleUploadedFile, TemporaryUploadedFile
from django.utils import timezone

from django_blobstore.errors import LengthMismatch
from django_blobstore.resource_storage import ResourceStorage, fresh_path
from django_blobstore.storages import hooks

# They are mixed into test cases, and must not be run by themselves.
if TYPE_CHECKING:
    Mixin: TypeAlias = TestCase
else:
    Mixin = object

# More than a chunk of any storage, and no number of whole ones.
LARGE = bytes(range(251)) * 10_000


class StorageContract(Mixin):
    """What Django and its file fields ask of the storage under `alias`, told without looking into it.

    Set `opens_files_anew` to False for one like Django's InMemoryStorage, where who opens a file gets the same stream
    as everybody else, which is never closed.
    """

    alias = "default"
    opens_files_anew = True

    @property
    def storage(self) -> Storage:
        return storages[self.alias]

    def setUp(self) -> None:
        super().setUp()
        # In a folder of its own, so that others may use the storage meanwhile.
        self.folder = f"contract-{uuid.uuid4().hex}"
        self.addCleanup(self._clear, self.folder)

    def save(self, name: str, content: bytes = b"content") -> str:
        """Save `content` in the folder of this test and return the name it got."""
        return self.storage.save(f"{self.folder}/{name}", ContentFile(content))

    def read(self, name: str) -> bytes:
        """Return what is stored under `name`."""
        with self.storage.open(name) as file:
            content: bytes = file.read()
        return content

    def test_what_is_saved_comes_back_under_the_name_it_was_given(self) -> None:
        for content in (b"", b"x", b"line\r\nline\n\x00\xff", LARGE):
            with self.subTest(length=len(content)):
                name = f"{self.folder}/{len(content)}.bin"
                self.assertEqual(self.storage.save(name, ContentFile(content)), name)
                self.assertEqual(self.read(name), content)
                self.assertEqual(self.storage.size(name), len(content))

    def test_a_name_that_is_taken_becomes_another_and_the_file_stays(self) -> None:
        first, second = self.save("a.txt", b"first"), self.save("a.txt", b"second")
        self.assertNotEqual(first, second)
        self.assertTrue(second.endswith(".txt"))
        self.assertEqual((self.read(first), self.read(second)), (b"first", b"second"))

    def test_a_name_is_kept_as_short_as_it_must_be(self) -> None:
        longest = len(self.folder) + 20
        for _ in range(2):
            name = self.storage.save(f"{self.folder}/{'n' * 40}.txt", ContentFile(b""), max_length=longest)
            self.assertLessEqual(len(name), longest)
            self.assertTrue(self.storage.exists(name))

    def test_names_may_have_folders_spaces_and_letters_of_any_language(self) -> None:
        for name in ("one/two/three.txt", "with space.txt", "Straße 東京 😀.txt", "a%20b#c?d.txt"):
            with self.subTest(name=name):
                saved = self.save(name, name.encode())
                self.assertEqual(saved, f"{self.folder}/{name}")
                self.assertEqual(self.read(saved), name.encode())

    def test_no_name_leads_out_of_the_storage(self) -> None:
        for name in ("../outside.txt", "inside/../../outside.txt"):
            with self.subTest(name=name), self.assertRaises(SuspiciousFileOperation):
                self.storage.save(name, ContentFile(b"content"))

    def test_a_file_exists_until_it_is_deleted_and_may_be_deleted_again(self) -> None:
        name = f"{self.folder}/a.txt"
        self.assertFalse(self.storage.exists(name))
        self.storage.save(name, ContentFile(b"content"))
        self.assertTrue(self.storage.exists(name))
        self.storage.delete(name)
        self.assertFalse(self.storage.exists(name))
        self.storage.delete(name)
        self.assertEqual(self.storage.save(name, ContentFile(b"again")), name)

    def test_a_file_that_is_absent_cannot_be_opened(self) -> None:
        with self.assertRaises(FileNotFoundError):
            self.storage.open(f"{self.folder}/absent.txt").read()

    def test_a_folder_lists_its_folders_and_files(self) -> None:
        for name in ("a.txt", "b.txt", "sub/c.txt", "sub/deeper/d.txt"):
            self.save(name)
        folders, files = self.storage.listdir(self.folder)
        self.assertEqual((sorted(folders), sorted(files)), (["sub"], ["a.txt", "b.txt"]))
        folders, files = self.storage.listdir(f"{self.folder}/sub")
        self.assertEqual((sorted(folders), sorted(files)), (["deeper"], ["c.txt"]))

    def test_the_time_of_the_last_change_is_now_and_in_the_zone_of_the_settings(self) -> None:
        name = self.save("a.txt")
        time = self.storage.get_modified_time(name)
        self.assertEqual(timezone.is_aware(time), settings.USE_TZ)
        aware = time if timezone.is_aware(time) else timezone.make_aware(time)
        self.assertLess(abs(datetime.now(UTC) - aware), timedelta(minutes=5))

    def test_uploads_of_every_kind_are_saved_from_their_start(self) -> None:
        for upload in _uploads():
            # Closed whatever comes: an upload that the storage moved away would complain when it is collected.
            with self.subTest(kind=type(upload).__name__), upload:
                upload.read(3)
                name = self.storage.save(f"{self.folder}/{type(upload).__name__}", upload)
                self.assertEqual(self.read(name), b"uploaded")

    def test_a_stream_without_name_or_chunks_is_saved(self) -> None:
        name = self.storage.save(f"{self.folder}/a.txt", io.BytesIO(b"stream"))
        self.assertEqual(self.read(name), b"stream")
        named = ContentFile(b"named", f"{self.folder}/named.txt")
        self.assertEqual(self.storage.save(None, named), f"{self.folder}/named.txt")

    def test_a_file_can_be_read_in_pieces_from_anywhere_and_again(self) -> None:
        with self.storage.open(self.save("large.bin", LARGE)) as file:
            self.assertEqual(file.read(10), LARGE[:10])
            self.assertEqual(file.tell(), 10)
            file.seek(len(LARGE) - 5)
            self.assertEqual(file.read(), LARGE[-5:])
            self.assertEqual(file.read(), b"")
            file.seek(-7, io.SEEK_END)
            self.assertEqual(file.read(3), LARGE[-7:-4])
            self.assertEqual(b"".join(file.chunks(1000)), LARGE)
            self.assertEqual(file.size, len(LARGE))

    def test_a_file_gives_its_lines(self) -> None:
        with self.storage.open(self.save("lines.txt", b"one\ntwo\n\nfour")) as file:
            self.assertEqual(list(file), [b"one\n", b"two\n", b"\n", b"four"])

    def test_a_file_that_is_open_twice_is_read_twice(self) -> None:
        name = self.save("a.bin", LARGE)
        with self.storage.open(name) as one, self.storage.open(name) as other:
            self.assertEqual(one.read(100), LARGE[:100])
            if self.opens_files_anew:
                self.assertEqual(other.read(100), LARGE[:100])
            self.assertEqual(one.read(100), LARGE[100:200])

    def test_a_closed_file_says_that_it_is(self) -> None:
        with self.storage.open(self.save("a.txt")) as file:
            self.assertFalse(file.closed)
        self.assertTrue(file.closed or not self.opens_files_anew)

    def test_a_url_is_text_or_is_refused(self) -> None:
        try:
            url = self.storage.url(self.save("with space.txt"))
        except (NotImplementedError, ValueError):
            return
        self.assertIsInstance(url, str)
        self.assertNotIn(" ", url)

    def _clear(self, folder: str) -> None:
        try:
            folders, files = self.storage.listdir(folder)
        except FileNotFoundError:
            return
        for name in files:
            self.storage.delete(f"{folder}/{name}")
        for name in folders:
            self._clear(f"{folder}/{name}")
        if hooks.keeps_files(self.storage):  # and folders, where others have none
            self.storage.delete(folder)


class BytesContract(Mixin):
    """What the store asks of the storage under `alias` that is to keep its bytes."""

    alias = "default"

    @property
    def bytes(self) -> ResourceStorage:
        return ResourceStorage(self.alias)

    def setUp(self) -> None:
        super().setUp()
        self.path = fresh_path()
        self.addCleanup(self._remove)

    def test_bytes_are_kept_under_exactly_the_path_they_were_given(self) -> None:
        for content in (b"", b"small", LARGE):
            with self.subTest(length=len(content)):
                path = fresh_path()
                self.addCleanup(self.bytes.remove, path)
                self.bytes.put(path, content)
                with self.bytes.get(path) as file:
                    self.assertEqual(file.read(), content)
                self.assertEqual(self.bytes.storage.size(path), len(content))

    def test_their_hash_is_told(self) -> None:
        # FIPS 180-4, the example "abc".
        expected = "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
        self.assertEqual(self.bytes.put(self.path, b"abc"), expected)

    def test_ranges_are_those_of_the_content_and_end_with_it(self) -> None:
        self.bytes.put(self.path, LARGE)
        wanted = [(0, 1), (250_999, 3), (1_000_000, 70_000), (len(LARGE) - 4, 4), (len(LARGE) - 2, 10), (5, 0)]
        expected = [LARGE[start : start + length] for start, length in wanted]
        self.assertEqual(list(self.bytes.read_ranges(self.path, wanted)), expected)
        self.assertEqual(self.bytes.read_range(self.path, 7, 9), LARGE[7:16])

    def test_absent_bytes_cannot_be_read_and_may_be_removed(self) -> None:
        with self.assertRaises(FileNotFoundError):
            self.bytes.get(self.path).read()
        with self.assertRaises(FileNotFoundError):
            self.bytes.read_range(self.path, 0, 1)
        self.bytes.remove(self.path)
        self.bytes.remove_many([self.path, fresh_path()])

    def test_removed_bytes_are_gone_and_others_stay(self) -> None:
        others = [fresh_path() for _ in range(3)]
        for path in (self.path, *others):
            self.bytes.put(path, path.encode())
        self.bytes.remove_many(others)
        self.assertEqual([path for path in others if self.bytes.storage.exists(path)], [])
        with self.bytes.get(self.path) as file:
            self.assertEqual(file.read(), self.path.encode())

    def test_a_stream_that_ends_early_or_breaks_leaves_nothing(self) -> None:
        with self.assertRaises(LengthMismatch):
            self.bytes.put(self.path, io.BytesIO(LARGE), len(LARGE) + 1)
        self.assertFalse(self.bytes.storage.exists(self.path))
        with self.assertRaises(ConnectionResetError):
            self.bytes.put(self.path, _Broken(LARGE))
        self.assertFalse(self.bytes.storage.exists(self.path))

    def test_a_stream_that_gives_little_at_a_time_is_stored_whole(self) -> None:
        self.bytes.put(self.path, _Dripping(LARGE[:5000]))
        with self.bytes.get(self.path) as file:
            self.assertEqual(file.read(), LARGE[:5000])

    def _remove(self) -> None:
        self.bytes.remove(self.path)


class _Broken(io.BytesIO):
    """A stream whose connection is lost before its end."""

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        if self.tell() == len(self.getvalue()):
            raise ConnectionResetError
        return block


class _Dripping(io.BytesIO):
    """A stream that gives at most seven bytes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(7 if size is None or size < 0 else min(size, 7))


def _uploads() -> Iterator[File[Any]]:
    content = b"uploaded"
    yield SimpleUploadedFile("simple.txt", content)
    yield InMemoryUploadedFile(io.BytesIO(content), "file", "memory.txt", "text/plain", len(content), None)
    temporary = TemporaryUploadedFile("temporary.txt", "text/plain", len(content), None)
    temporary.write(content)
    temporary.seek(0)
    yield temporary
    yield File(io.BytesIO(content), "file.txt")
