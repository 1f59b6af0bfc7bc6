"""GridFSStorage as a Django storage: options, names, listings, times, and life with processes and FileFields."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import gridfs
import pytest
from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.files.uploadedfile import InMemoryUploadedFile, TemporaryUploadedFile
from django.db import models
from django.db.migrations.writer import MigrationWriter
from django.utils import timezone
from pymongo import MongoClient
from pytest_django import Settings

from django_blobstore.storages import GridFSStorage
from django_blobstore.storages.gridfs_bucket import bucket_for
from tests.conftest import PATIENCE
from tests.mongo import Commands, failing
from tests.stored import StoredInGridFS


@pytest.fixture
def configured(bucket: StoredInGridFS, settings: Settings) -> GridFSStorage:
    """The storage as a project has it: by its alias."""
    settings.STORAGES = {**settings.STORAGES, "default": bucket.options}
    storage = storages["default"]
    assert isinstance(storage, GridFSStorage)
    return storage


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"databse": "x"}, "'databse'. Did you mean 'database'?"),
        ({"zzz": 1}, "'zzz'. It has allow_overwrite, base_url"),
        ({"chunk_size": 0}, "'chunk_size' is a number of bytes from 1 to 4194304, not 0"),
        ({"chunk_size": 5 * 2**20}, "not 5242880"),
        ({"chunk_size": "1"}, "not '1'"),
    ],
)
def test_a_wrong_option_is_refused_with_the_way_out(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured) as raised:
        GridFSStorage(**options)
    assert message in str(raised.value)


def test_the_global_settings_of_a_project_are_not_options(settings: Settings) -> None:
    settings.MONGODB_URI = settings.URI = "mongodb://elsewhere/"
    settings.DATABASE = "elsewhere"
    assert GridFSStorage().uri == "mongodb://localhost:27017/"
    assert GridFSStorage().database == ""


def test_a_storage_in_a_migration_is_written_by_its_public_path() -> None:
    code, imports = MigrationWriter.serialize(GridFSStorage(database="files"))
    assert code == "django_blobstore.storages.GridFSStorage(database='files')"
    assert imports == {"import django_blobstore.storages"}


def test_the_database_of_the_uri_is_used_unless_another_is_named(mongo_uri: str) -> None:
    with_database = mongo_uri.replace("/?", "/of_the_uri?")
    assert bucket_for(with_database, "", "fs", {}).database.name == "of_the_uri"
    assert bucket_for(with_database, "named", "fs", {}).database.name == "named"
    assert bucket_for(mongo_uri, "", "fs", {}).database.name == "blobstore"


def test_namespaces_keep_files_apart(storage: GridFSStorage, bucket: StoredInGridFS) -> None:
    other = GridFSStorage(**bucket.options["OPTIONS"] | {"namespace": "other"})
    storage.save("content", ContentFile(b"abc"))
    assert not other.exists("content")
    other.delete("content")
    assert storage.exists("content")


def test_equal_options_share_a_client(mongo_uri: str) -> None:
    one, two = (GridFSStorage(uri=mongo_uri, namespace=name) for name in ("one", "two"))
    other = GridFSStorage(uri=mongo_uri, client_options={"maxPoolSize": 5})
    assert one._bucket.database.client is two._bucket.database.client
    assert one._bucket.database.client is not other._bucket.database.client


def test_options_of_the_uri_and_of_the_client_go_before_our_defaults(mongo_uri: str) -> None:
    def options(uri: str, **client_options: Any) -> Any:
        return bucket_for(uri, "", "fs", client_options).database.client.options

    plain = mongo_uri.removesuffix(PATIENCE)
    assert options(plain).server_selection_timeout == 15
    assert options(plain + "&serverselectiontimeoutms=3000").server_selection_timeout == 3
    assert options(plain, serverSelectionTimeoutMS=4000).server_selection_timeout == 4
    assert options(mongo_uri).pool_options.appname == "django-blobstore"


def test_a_name_in_use_is_not_given_again(storage: GridFSStorage) -> None:
    first = storage.save("folder/report.pdf", ContentFile(b"one"))
    second = storage.save("folder/report.pdf", ContentFile(b"two"))
    assert first == "folder/report.pdf"
    assert second.startswith("folder/report_")
    assert second.endswith(".pdf")
    with storage.open(first) as file:
        assert file.read() == b"one"


def test_allow_overwrite_replaces_the_file(bucket: StoredInGridFS) -> None:
    storage = GridFSStorage(**bucket.options["OPTIONS"], allow_overwrite=True)
    assert [storage.save("report.pdf", ContentFile(data)) for data in (b"one", b"two")] == ["report.pdf"] * 2
    with storage.open("report.pdf") as file:
        assert file.read() == b"two"
    assert storage._bucket.chunks.count_documents({}) == 1


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", ""])
def test_an_unsafe_name_is_refused_and_leaves_nothing(
    storage: GridFSStorage, bucket: StoredInGridFS, name: str
) -> None:
    with pytest.raises(SuspiciousFileOperation):
        storage.save(name, ContentFile(b"abc"))
    assert bucket.names() == set()


def test_any_stored_name_can_be_opened_and_deleted(storage: GridFSStorage, stock: gridfs.GridFSBucket) -> None:
    for name in ("../up", "/absolute", "a//b", "ünï/çødé", "$where", "a\nb"):
        stock.upload_from_stream(name, name.encode())
        with storage.open(name) as file:
            assert file.read() == name.encode()
        storage.delete(name)
        assert not storage.exists(name)


def test_deleting_takes_every_revision_and_nothing_else(storage: GridFSStorage, stock: gridfs.GridFSBucket) -> None:
    for name in ("content", "content", "content2"):
        stock.upload_from_stream(name, b"abc")
    storage.delete("content")
    storage.delete("content")
    assert list(storage.names()) == ["content2"]
    assert storage._bucket.chunks.count_documents({}) == 1
    with pytest.raises(ValueError, match="name must be given"):
        storage.delete("")


def test_many_names_are_deleted_by_few_commands(storage: GridFSStorage, commands: Commands) -> None:
    names = [storage.save_named(f"{i}", io.BytesIO(b"abc")) for i in range(250)]
    commands.clear()
    storage.delete_many([*names[1:], "missing"])
    assert len(commands.sent) == 6
    assert list(storage.names()) == ["0"]
    assert storage._bucket.chunks.count_documents({}) == 1


def test_listing_shows_what_lies_right_under_a_path(storage: GridFSStorage, stock: gridfs.GridFSBucket) -> None:
    names = ["top", "a/one", "a/one", "a/b/two", "a/b/c/three", "a.b", "a0", "a/ä/x", "ab/x", "a(/y", "a*"]
    for name in names:
        stock.upload_from_stream(name, b"")
    assert storage.listdir("") == (["a", "a(", "ab"], ["a*", "a.b", "a0", "top"])
    assert storage.listdir("a") == storage.listdir("a/") == (["b", "ä"], ["one"])
    assert storage.listdir("a/b") == (["c"], ["two"])
    assert storage.listdir("a/ä") == ([], ["x"])
    assert storage.listdir("a(") == ([], ["y"])
    assert storage.listdir("missing") == ([], [])


def test_listing_skips_files_without_a_name(storage: GridFSStorage) -> None:
    storage._bucket.files.insert_one({"length": 0, "chunkSize": 1})
    storage.save("content", ContentFile(b""))
    assert storage.listdir("") == ([], ["content"])
    assert list(storage.names()) == ["content"]


def test_listing_a_folder_reads_only_its_own_index_entries(storage: GridFSStorage, bucket: StoredInGridFS) -> None:
    storage.ensure_indexes()
    documents = [{"filename": f"{folder}/{i}", "length": 0, "chunkSize": 1} for folder in "abc" for i in range(100)]
    storage._bucket.files.insert_many(documents)
    profiler = storage._bucket.database
    profiler.command("profile", 2)
    storage.listdir("b")
    profiler.command("profile", 0)
    entry = profiler["system.profile"].find_one({"command.aggregate": f"{bucket.namespace}.files"})
    assert entry is not None
    assert (entry["keysExamined"], entry["docsExamined"]) == (100, 0)


def test_urls_need_a_base(storage: GridFSStorage, bucket: StoredInGridFS) -> None:
    with pytest.raises(ValueError, match="not accessible via a URL"):
        storage.url("content")
    for base in ("https://files.example/f", "https://files.example/f/"):
        served = GridFSStorage(**bucket.options["OPTIONS"], base_url=base)
        assert served.url("a b/c?.txt") == "https://files.example/f/a%20b/c%3F.txt"


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland"])
def test_times_are_aware_with_use_tz_and_local_without(storage: GridFSStorage, settings: Settings, zone: str) -> None:
    settings.TIME_ZONE = zone
    before = datetime.now(UTC)
    storage.save("content", ContentFile(b"abc"))
    settings.USE_TZ = True
    aware = storage.get_modified_time("content")
    assert before - timedelta(milliseconds=1) < aware <= datetime.now(UTC)
    settings.USE_TZ = False
    naive = storage.get_created_time("content")
    assert naive.tzinfo is None
    assert timezone.make_aware(naive, timezone.get_default_timezone()) == aware
    with pytest.raises(NotImplementedError):
        storage.get_accessed_time("content")


@pytest.mark.parametrize("mode", ["r", "w", "ab", "r+b", "xb"])
def test_other_modes_are_refused(storage: GridFSStorage, mode: str) -> None:
    with pytest.raises(ValueError, match="'rb' or 'wb'"):
        storage.open("content", mode)


def test_a_restored_bucket_gets_its_indexes_with_the_first_write(
    storage: GridFSStorage, stock: gridfs.GridFSBucket
) -> None:
    stock.upload_from_stream("content", b"abc")
    for collection in (storage._bucket.files, storage._bucket.chunks):
        collection.drop_indexes()
    assert [problem.split(";")[0] for problem in storage.problems()] == [
        f"{storage._bucket.files.full_name} has no index on filename, uploadDate",
        f"{storage._bucket.chunks.full_name} has no index on files_id, n",
    ]
    storage.save("another", ContentFile(b"abc"))
    assert storage.problems() == []
    information = storage._bucket.chunks.index_information()
    assert information["files_id_1_n_1"]["unique"]


def test_an_index_that_lets_chunks_of_two_uploads_mix_is_a_problem(
    storage: GridFSStorage, bucket: StoredInGridFS
) -> None:
    storage.save("content", ContentFile(b"abc"))
    chunks = storage._bucket.chunks
    chunks.drop_index("files_id_1_n_1")
    chunks.create_index([("files_id", 1), ("n", 1)])
    (problem,) = storage.problems()
    assert problem.startswith(f"{chunks.full_name} has no index on files_id, n that is unique")
    assert "Drop 'files_id_1_n_1'" in problem
    storage.save("another", ContentFile(b"abc"))
    chunks.drop_index("files_id_1_n_1")
    GridFSStorage(**bucket.options["OPTIONS"]).ensure_indexes()
    assert storage.problems() == []


def test_the_indexes_of_a_stock_driver_are_left_alone(storage: GridFSStorage, stock: gridfs.GridFSBucket) -> None:
    stock.upload_from_stream("content", b"abc")
    before = storage._bucket.files.index_information()
    storage.save("another", ContentFile(b"abc"))
    assert storage._bucket.files.index_information() == before
    assert len(storage._bucket.chunks.index_information()) == 2


def test_an_empty_bucket_has_no_problems(storage: GridFSStorage) -> None:
    assert storage.problems() == []


def test_a_server_that_does_not_answer_is_a_problem() -> None:
    storage = GridFSStorage(uri="mongodb://user:secret@127.0.0.1:9/?serverSelectionTimeoutMS=100")
    (problem,) = storage.problems()
    assert problem.startswith("MongoDB did not answer for blobstore.fs.files")
    assert "secret" not in problem


def test_a_server_that_fails_is_a_problem(storage: GridFSStorage, mongo_uri: str) -> None:
    with failing(mongo_uri, "hello", "listIndexes", errorCode=13):
        (problem,) = storage.problems()
    assert "did not answer" in problem


def in_child(check: Callable[[], bool]) -> bool:
    """Tell whether `check` holds in a forked process."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:This process.*use of fork:DeprecationWarning")
def test_a_forked_process_uses_a_client_of_its_own(storage: GridFSStorage) -> None:
    storage.save("content", ContentFile(bytes(5 * 2**20)))
    mine = storage._bucket.database.client

    def works() -> bool:
        storage.save("child", ContentFile(bytes(10 * 2**20)))
        with storage.open("content") as file:
            return len(file.read()) == 5 * 2**20 and storage._bucket.database.client is not mine

    assert in_child(works)
    assert storage.size("child") == 10 * 2**20
    assert storage._bucket.database.client is mine


class Document(models.Model):
    """A model of some project; only its file field is used, no table."""

    file = models.FileField(upload_to="documents")

    class Meta:
        app_label = "somebody"
        managed = False

    def __str__(self) -> str:
        return str(self.file)


@pytest.mark.parametrize("kind", ["content", "text", "memory", "temporary", "stream", "local"])
def test_a_file_field_keeps_any_kind_of_upload(configured: GridFSStorage, kind: str, tmp_path: Any) -> None:
    data = b"some content " * 50_000
    temporary = TemporaryUploadedFile("x.txt", "text/plain", len(data), None)
    temporary.write(data)
    (tmp_path / "local.txt").write_bytes(data)
    uploads: dict[str, Callable[[], File[Any]]] = {
        "content": lambda: ContentFile(data),
        "text": lambda: ContentFile(data.decode()),
        "memory": lambda: InMemoryUploadedFile(io.BytesIO(data), None, "x.txt", "text/plain", len(data), None),
        "temporary": lambda: temporary,
        "stream": lambda: File(io.BytesIO(data)),
        "local": lambda: File((tmp_path / "local.txt").open("rb")),
    }
    document = Document()
    document.file.save("x.txt", uploads[kind](), save=False)
    assert document.file.name == "documents/x.txt"
    assert document.file.size == len(data)
    fresh = Document(file=document.file.name)
    assert fresh.file.read() == data
    fresh.file.close()
    with fresh.file.open() as file:
        assert b"".join(file.chunks()) == data
    fresh.file.delete(save=False)
    assert list(configured.names()) == []


def test_content_is_saved_from_its_beginning(storage: GridFSStorage) -> None:
    content = ContentFile(b"abcdef")
    content.read(3)
    storage.save("content", content)
    assert storage.size("content") == 6


def test_a_stored_file_is_copied_within_the_storage(storage: GridFSStorage) -> None:
    storage.save("content", ContentFile(bytes(5 * 2**20)))
    with storage.open("content") as file:
        storage.save("copy", file)
    assert storage.size("copy") == 5 * 2**20


def test_the_name_of_a_database_is_never_created_by_reading(mongo_uri: str, bucket: StoredInGridFS) -> None:
    storage = GridFSStorage(**bucket.options["OPTIONS"])
    assert not storage.exists("content")
    assert storage.listdir("") == ([], [])
    assert storage.problems() == []
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        assert bucket.database not in client.list_database_names()
