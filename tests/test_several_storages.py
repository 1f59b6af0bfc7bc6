"""A store whose contents lie in two storages, as they do once the setting STORAGE was changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import InvalidStorageError
from django.test import RequestFactory
from pytest_django import Settings

from django_blobstore import proof
from django_blobstore.errors import ContentDamaged, QuotaExceeded
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PendingFile, Resource
from django_blobstore.resource_storage import StorageNotConfigured, fresh_path
from django_blobstore.rest.handover import handed_over
from django_blobstore.storages import hooks
from django_blobstore.upkeep import AuditReport, Kind, audit, measure, scrub, sweep
from tests import damage
from tests.admin_pages import administrator, page, text
from tests.invariants import assert_empty, assert_settled, assert_sound, end_leases_and_graces
from tests.stored import ALIAS, ELSEWHERE, Stored
from tests.streams import MIB, Stream, content_of

HERE = Namespace("b")
OLD, NEW, OLD_SMALL, NEW_SMALL = content_of(600_000, 1), content_of(MIB + 600_000, 2), b"old", b"new"


@pytest.fixture
def new(database: str, stored: Stored, make_stored: Callable[[str], Stored], settings: Settings) -> Stored:
    """A storage beside the old one, which has all that comes from now on; two objects came before and two after."""
    store = ManagedStorage()
    store.put(HERE, "old", OLD)
    store.put(HERE, "old small", OLD_SMALL)
    new = make_stored({"files": "gridfs", "gridfs": "files"}[stored.kind])
    new.stand_beside(stored, settings)
    settings.BLOBSTORE = {"STORAGE": ELSEWHERE, "DELETION_GRACE": 0}
    store = ManagedStorage()
    store.put(HERE, "new", Stream(NEW))
    store.put(HERE, "new small", NEW_SMALL)
    return new


def file_of(path: str) -> str:
    return ManagedResource.objects.get(path=path).resource.path


def found(report: AuditReport) -> set[tuple[Kind, str]]:
    return {(finding.kind, finding.storage) for finding in report.findings.sample}


def test_each_object_is_read_whole_and_in_part_from_where_it_lies(stored: Stored, new: Stored) -> None:
    assert (len(stored.names()), len(new.names())) == (2, 2)
    store = ManagedStorage()
    for path, content in {"old": OLD, "new": NEW, "old small": OLD_SMALL, "new small": NEW_SMALL}.items():
        assert store.get(HERE, path).read() == content
    for path, content in {"old": OLD, "new": NEW}.items():
        with store.get(HERE, path) as file:
            file.seek(400_000)
            assert file.read(1000) == content[400_000:401_000]
    assert_sound(stored)


def test_what_is_stored_in_the_old_storage_is_shared_and_goes_with_its_last_object(stored: Stored, new: Stored) -> None:
    store = ManagedStorage()
    store.put(HERE, "same", OLD)
    store.copy(store.stat(HERE, "old small"), HERE, "copy")
    store.put_for_bucket("b", "claimed", OLD_SMALL)
    request = store.put_request(HERE, "proven", hashlib.sha384(OLD).hexdigest())
    store.proof_of_access_response(proof.answer(OLD, request, hashlib.sha384(OLD).hexdigest()))
    assert (len(stored.names()), len(new.names())) == (2, 2)
    for path in ("old", "same", "proven"):
        store.remove(HERE, path)
    assert len(stored.names()) == 1
    store.put(HERE, "new", OLD_SMALL)
    assert len(new.names()) == 1
    store.remove_all(ManagedResource.objects.all())
    assert_empty(stored)


def test_a_sweep_deletes_in_each_storage_what_is_due_there(stored: Stored, new: Stored, settings: Settings) -> None:
    settings.BLOBSTORE = {"STORAGE": ELSEWHERE, "DELETION_GRACE": 300}
    store = ManagedStorage()
    store.remove(HERE, "old")
    store.remove(HERE, "new")
    assert (len(stored.names()), len(new.names())) == (2, 2)
    end_leases_and_graces()
    assert sweep().deleted_files == 2
    assert (len(stored.names()), len(new.names()), PendingFile.objects.count()) == (1, 1, 0)
    assert_settled(stored)


def test_an_audit_looks_at_the_files_of_both(stored: Stored, new: Stored) -> None:
    for storage in (stored, new):
        hooks.save(storage.storage, fresh_path(), ContentFile(b"stray"))
        damage.make_old(storage)
    stored.storage.delete(file_of("old"))
    damage.truncate(new, file_of("new"))
    wrong = {(Kind.FILE_WITHOUT_ROW, ALIAS), (Kind.FILE_WITHOUT_ROW, ELSEWHERE)}
    wrong |= {(Kind.FILE_MISSING, ALIAS), (Kind.FILE_OF_OTHER_LENGTH, ELSEWHERE)}
    report = audit()
    assert (found(report), report.findings.left, report.files) == (wrong, 4, 5)
    assert audit(fix=True).findings.left == 2
    assert found(audit()) == {(Kind.DAMAGED, ALIAS), (Kind.DAMAGED, ELSEWHERE)}
    # Healed content lies where new files do.
    ManagedStorage().put(HERE, "old", OLD)
    ManagedStorage().put(HERE, "new", NEW)
    assert found(audit()) == set()
    assert (stored.names(), len(new.names())) == ({file_of("old small")}, 3)
    assert_settled(stored)


def test_an_audit_finds_what_is_left_in_a_storage_that_no_row_speaks_of_if_asked(stored: Stored, new: Stored) -> None:
    ManagedStorage().remove(HERE, "old")
    ManagedStorage().remove(HERE, "old small")
    stray = hooks.save(stored.storage, fresh_path(), ContentFile(b"stray"))
    damage.make_old(stored)
    assert found(audit()) == set()
    assert found(audit(also=[ALIAS])) == {(Kind.FILE_WITHOUT_ROW, ALIAS)}
    assert stray in stored.names()
    audit(also=[ALIAS], fix=True)
    assert stored.names() == set()


def test_a_scrub_finds_damage_in_both_and_goes_on_past_a_storage_that_is_gone(
    stored: Stored, new: Stored, settings: Settings
) -> None:
    damage.flip(stored, file_of("old"), 5)
    damage.flip(new, file_of("new"), 5)
    report = scrub()
    assert (report.compared, report.damaged) == (4, 2)
    for path in ("old", "new"):
        with pytest.raises(ContentDamaged):
            ManagedStorage().get(HERE, path).read()
    settings.STORAGES = {alias: options for alias, options in settings.STORAGES.items() if alias != ALIAS}
    report = scrub()
    assert (report.compared, report.unread, Resource.objects.damaged().count()) == (2, 2, 2)


def test_a_storage_that_is_gone_from_the_settings_is_told_and_nothing_in_it_is_forgotten(
    stored: Stored, new: Stored, settings: Settings
) -> None:
    all_of_them = settings.STORAGES
    settings.STORAGES = {alias: options for alias, options in all_of_them.items() if alias != ALIAS}
    for error in (StorageNotConfigured, InvalidStorageError):  # ours is one of Django's
        with pytest.raises(error, match="no alias 'blobstore'; define it as it was"):
            ManagedStorage().get(HERE, "old")
    client = administrator()
    got: Any = client.get(f"/api/buckets/{HERE.bucket_id}/objects/old")
    assert (got.status_code, got.json()["code"], got["Retry-After"]) == (503, "storage-unreachable", "5")
    assert "'blobstore'" in got.json()["detail"]
    download = page(ManagedResource, "download", ManagedResource.objects.get(path="old").pk)
    assert "STORAGES has no alias" in text(client.get(download, follow=True))
    assert ManagedStorage().get(HERE, "new").read() == NEW
    assert "'blobstore'" in audit(fix=True).unread[ALIAS]
    ManagedStorage().remove(HERE, "old")
    assert sweep().failed_files == 1
    settings.STORAGES = all_of_them
    assert not Resource.objects.damaged().exists()
    assert_settled(stored)
    assert stored.names() == {file_of("old small")}


def test_quotas_and_totals_do_not_ask_where_contents_lie(stored: Stored, new: Stored) -> None:
    bucket = Bucket.objects.with_usage().get()
    length = len(OLD) + len(NEW) + 6
    assert (bucket.object_count, bucket.logical_bytes, bucket.stored_bytes) == (4, length, length)
    Bucket.objects.update(quota_bytes=length + 3)
    ManagedStorage().put(HERE, "again", OLD_SMALL)
    with pytest.raises(QuotaExceeded):
        ManagedStorage().put(HERE, "more", b"x")
    measure()
    assert_settled(stored)


def test_a_server_in_front_sends_only_what_lies_where_it_has_a_location(
    stored: Stored, new: Stored, settings: Settings
) -> None:
    in_files, in_gridfs = ("old", "new") if stored.kind == "files" else ("new", "old")
    alias = ManagedResource.objects.get(path=in_files).resource.storage
    settings.BLOBSTORE = {**settings.BLOBSTORE, "SERVE_METHOD": "x-accel", "SERVE_LOCATION": {alias: "/kept/"}}
    request = RequestFactory().get("/")
    answers = [
        handed_over(request, ManagedStorage().stat(HERE, path), {"X-Content-SHA384": ""}, in_part=False)
        for path in (in_files, in_gridfs)
    ]
    assert answers[0] is not None
    assert answers[0].headers["X-Accel-Redirect"] == f"/kept/{file_of(in_files)}"
    assert answers[1] is None
