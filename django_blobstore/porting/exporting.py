"""How objects become files beside a manifest: in which order, so that a killed export goes on where it was."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

from django_blobstore.errors import BlobstoreError, ResourceNotFound, UploadPending
from django_blobstore.listing import list_page
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource
from django_blobstore.namespaces import Namespace
from django_blobstore.passing import Passing
from django_blobstore.porting.manifest import MANIFEST, SUMS, FileNames, Line, whole_lines, write_sums
from django_blobstore.porting.seen import SeenContents
from django_blobstore.porting.sources import next_member
from django_blobstore.resource_storage import BLOCK_SIZE

PAGE = 500


@dataclass
class ExportReport:
    """What an export came to: `objects` with `bytes`, that an earlier run had `resumed` some of, and `contents`.

    The contents have `content_bytes`, each counted once. Of `failed` objects the bytes are damaged or not there yet. Of
    the object that is being written `bytes_under_way` were read.
    """

    objects: int = 0
    bytes: int = 0
    resumed: int = 0
    contents: int = 0
    content_bytes: int = 0
    failed: int = 0
    bytes_under_way: int = 0

    @property
    def saved_bytes(self) -> int:
        """How many bytes less the store takes than the files of the export."""
        return self.bytes - self.content_bytes


class Export(Protocol):
    """Where files go. `manifest` is the file that grows in step with what is written."""

    manifest: Path

    def begin(self, lines: int) -> None:
        """Make ready to write after the files of so many `lines`, and forget what comes after them."""

    def write(self, line: Line, content: Passing) -> None:
        """Write the bytes of `content` to the file that `line` names, whole or not at all."""

    def finish(self) -> None:
        """Write the sums, and give everything its lasting name."""

    def close(self) -> None:
        """Let go of files."""


class DirectoryExport:
    """Writes into a directory, which must be new, empty or an unfinished export. Raises `FileExistsError`."""

    def __init__(self, directory: Path) -> None:
        self.manifest = directory / MANIFEST
        self._directory = directory
        self._partial = directory / ".partial"
        if (directory / SUMS).exists():
            raise FileExistsError(f"The export in {directory} is complete; choose another directory.")
        if directory.exists() and not self.manifest.exists() and any(directory.iterdir()):
            raise FileExistsError(f"{directory} is not empty and no export; choose another directory.")

    def begin(self, lines: int) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._partial.unlink(missing_ok=True)

    def write(self, line: Line, content: Passing) -> None:
        file = self._directory / line.file
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._partial.open("wb") as partial:
                while block := content.read(BLOCK_SIZE):
                    partial.write(block)
        except BaseException:
            self._partial.unlink(missing_ok=True)
            raise
        os.utime(self._partial, (line.modified, line.modified))
        self._partial.replace(file)

    def finish(self) -> None:
        with self.manifest.open("rb") as lines, self._partial.open("wb") as sums:
            write_sums(lines, self.manifest, sums)
        self._partial.replace(self._directory / SUMS)

    def close(self) -> None:
        pass


class TarExport:
    """Writes a tar file, which is there once it is complete; until then it and its manifest end with ``.partial``.

    Raises `FileExistsError` if it is there already.
    """

    def __init__(self, archive: Path) -> None:
        self.manifest = archive.with_name(f"{archive.name}.{MANIFEST}.partial")
        self._archive = archive
        self._partial = archive.with_name(f"{archive.name}.partial")
        self._file: IO[bytes] | None = None
        self._tar: tarfile.TarFile | None = None
        if archive.exists():
            raise FileExistsError(f"{archive} is there already; choose another name.")

    def begin(self, lines: int) -> None:
        end = _end_of(self._partial, lines)
        self._file = self._partial.open("r+b" if lines else "wb")
        self._file.seek(end)
        self._file.truncate()
        # Closed in finish; after a failure the end of the archive is not to be written.
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._tar.copybufsize = BLOCK_SIZE  # type: ignore[attr-defined]

    def write(self, line: Line, content: Passing) -> None:
        self._add(line.file, content, line.length, line.modified)

    def finish(self) -> None:
        with self.manifest.open("rb") as lines, tempfile.TemporaryFile() as sums:
            write_sums(lines, self.manifest, sums)
            for name, file in ((MANIFEST, lines), (SUMS, sums)):
                length = file.seek(0, os.SEEK_END)
                file.seek(0)
                self._add(name, file, length, self.manifest.stat().st_mtime)
        cast("tarfile.TarFile", self._tar).close()
        os.fsync(cast("IO[bytes]", self._file).fileno())
        self.close()
        self._partial.replace(self._archive)
        self.manifest.unlink()

    def close(self) -> None:
        if self._file:
            self._file.close()

    def _add(self, name: str, content: Passing | IO[bytes], length: int, modified: float) -> None:
        tar, file = cast("tarfile.TarFile", self._tar), cast("IO[bytes]", self._file)
        start = tar.offset
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = length, int(modified), 0o644
        try:
            tar.addfile(member, cast("IO[bytes]", content))
        except BaseException:
            tar.offset = start
            file.seek(start)
            file.truncate()
            raise
        # It would keep all of them in memory.
        tar.members.clear()  # type: ignore[attr-defined]
        file.flush()


def export_objects(
    namespace: Namespace,
    export: Export,
    *,
    prefix: str = "",
    dry_run: bool = False,
    on_failure: Callable[[str, Exception], object],
    on_progress: Callable[[ExportReport], object],
) -> ExportReport:
    """Write the objects of `namespace` whose path starts with `prefix`, in byte order, or go on where a run was killed.

    Each is read once and checked on the way. Those that cannot be read are told to `on_failure`; those removed
    meanwhile are left out, and those put behind the place where it is. `on_progress` is called with the report so far,
    while bytes pass and after each object. A `dry_run` counts and writes nothing. Raises `ValueError` if an unfinished
    export is one of something else, and `OSError` if files cannot be written.
    """
    work = _Work(namespace, prefix, export, on_failure, on_progress)
    if dry_run:
        return work.count()
    try:
        return work.run()
    finally:
        export.close()


class _Work:
    def __init__(
        self,
        namespace: Namespace,
        prefix: str,
        export: Export,
        on_failure: Callable[[str, Exception], object],
        on_progress: Callable[[ExportReport], object],
    ) -> None:
        self._namespace = namespace
        self._prefix = prefix
        self._export = export
        self._on_failure = on_failure
        self._on_progress = on_progress
        self._report = ExportReport()
        self._store = ManagedStorage()
        self._names = FileNames()
        self._seen = SeenContents()
        self._after = ""

    def count(self) -> ExportReport:
        for managed in self._objects():
            self._count(managed.resource.sha384, managed.resource.length)
        return self._report

    def run(self) -> ExportReport:
        self._export.manifest.parent.mkdir(parents=True, exist_ok=True)
        with self._export.manifest.open("a+b") as manifest:
            manifest.seek(0)
            self._resume(manifest)
            self._export.begin(self._report.resumed)
            for managed in self._objects():
                self._write_or_tell(managed, manifest)
        self._export.finish()
        return self._report

    def _resume(self, manifest: IO[bytes]) -> None:
        """Count what an earlier run wrote, and begin after it."""
        for line in whole_lines(manifest):
            is_of_these = line.namespace.bucket_id == self._namespace.bucket_id and line.user == self._namespace.user
            if not is_of_these or not line.path.startswith(self._prefix):
                raise ValueError(f"{self._export.manifest} is of another export; finish that, or choose another place.")
            self._names.name(line.path)
            self._after = line.path
            self._report.resumed += 1
            self._count(line.sha384, line.length)

    def _objects(self) -> Iterator[ManagedResource]:
        after = self._after
        while True:
            page = list_page(self._namespace, prefix=self._prefix, after=after, limit=PAGE)
            yield from page.objects
            after = page.next_after
            if not after:
                return

    def _write_or_tell(self, managed: ManagedResource, manifest: IO[bytes]) -> None:
        # Also for one that fails: its name is given to no other.
        file = self._names.name(managed.path)
        try:
            line = self._write_latest(managed, file)
        except ResourceNotFound:
            return
        except BlobstoreError as error:
            self._report.failed += 1
            self._on_failure(managed.path, error)
            return
        manifest.write(bytes(line))
        manifest.flush()
        self._count(line.sha384, line.length)
        self._on_progress(self._report)

    def _write_latest(self, managed: ManagedResource, file: str) -> Line:
        try:
            return self._write(managed, file)
        except ResourceNotFound:
            # It was removed, or replaced while it was read.
            return self._write(self._store.stat(self._namespace, managed.path), file)

    def _write(self, managed: ManagedResource, file: str) -> Line:
        if not managed.resource.path:
            raise UploadPending(managed.path)
        with self._store.open(managed) as blob:
            # It may have been replaced since it was listed.
            line = Line.of(blob.managed, file)
            passing = Passing(blob, self._pass)
            try:
                self._export.write(line, passing)
            finally:
                self._report.bytes_under_way = 0
        return line

    def _pass(self, length: int) -> None:
        self._report.bytes_under_way += length
        self._on_progress(self._report)

    def _count(self, sha384: str, length: int) -> None:
        self._report.objects += 1
        self._report.bytes += length
        if self._seen.add(sha384):
            self._report.contents += 1
            self._report.content_bytes += length


def _end_of(archive: Path, members: int) -> int:
    """Return where the first so many `members` of `archive` end."""
    if not members:
        return 0
    end = 0
    with tarfile.open(archive, "r:") as tar:
        for _ in range(members):
            member = next_member(tar)
            if member is None:
                raise ValueError(f"{archive} is shorter than its manifest says; delete both and begin anew.")
            end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return end
