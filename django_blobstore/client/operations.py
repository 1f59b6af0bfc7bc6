"""What a client can ask of a store, by address: ``bucket/path``, where a bucket is a name, a UUID, "me" or "global"."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from django_blobstore.client.get import Receiver
from django_blobstore.client.memory import Hashes, Uploads, find_login, state_directory
from django_blobstore.client.outcomes import (
    Meter,
    OnProgress,
    Outcome,
    attempt,
    in_parallel,
    no_progress,
    unmetered,
)
from django_blobstore.client.places import Buckets, Place, read_page
from django_blobstore.client.problems import InvalidAddress, Refused
from django_blobstore.client.put import LARGE, PART, Sender, Turns
from django_blobstore.client.transport import OnWait, Transport, wait_silently
from django_blobstore.client.tree import Mirror

_MANY = 1000


class Client:
    """A store, asked over its REST interface; many threads may use one client.

    `url` and `token` are by default those of the environment (BLOBSTORE_URL, BLOBSTORE_TOKEN) or of the last
    ``blobstore login``. Of many objects `jobs` are under way at once. Contents of `large` bytes and more are sent in
    parts of `part` bytes; the store then goes on where an earlier attempt broke off, which is remembered in the
    directory `state`, and so are the hashes of such files and of those synchronised. `on_wait` is told of an error
    after which something is tried again, and in how many seconds.

    An address that is empty after the bucket or ends with a slash means all objects below it. All methods raise
    `Refused`, `Unreachable` and `InvalidAddress`; those that carry content also `ContentDiffers` and `OSError`. Those
    on many objects yield an `Outcome` for each instead, as they come, and raise what concerns all of them.
    """

    def __init__(
        self,
        url: str = "",
        token: str = "",
        *,
        jobs: int = 4,
        large: int = LARGE,
        part: int = PART,
        state: Path | None = None,
        on_wait: OnWait = wait_silently,
    ) -> None:
        self.jobs = jobs
        state = state or state_directory()
        self._hashes = Hashes(state)
        self._transport = Transport(*find_login(url, token), connections=jobs + 1, on_wait=on_wait)
        self._buckets = Buckets(self._transport)
        self._sender = Sender(self._transport, Uploads(state), self._hashes, Turns(), large, part)
        self._receiver = Receiver(self._transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()
        self._hashes.close()

    def stop(self) -> None:
        """Have everything that is under way raise `Stopped`, from any thread; the client is of no use then."""
        self._transport.stop.set()

    @property
    def url(self) -> str:
        return self._transport.url

    def buckets(self) -> list[dict[str, Any]]:
        """Return the buckets that are listed for the user, as the store describes them."""
        return self._buckets.all()

    def create_bucket(self, name: str) -> dict[str, Any]:
        """Make a bucket and return it as the store describes it.

        Raises `InvalidAddress` for a name that would not name it: you see a bucket of that name, or it is a UUID.
        """
        self._buckets.require_new(name)
        return self._transport.post("buckets/", {"name": name}, repeatable=False)

    def objects(self, address: str) -> Generator[dict[str, Any]]:
        """Yield the objects whose paths begin with that of `address`, in byte order, as the store describes them."""
        return self._listed(self._buckets.place(address), {})

    def folder(self, address: str) -> Generator[dict[str, Any]]:
        """Yield the same, but for each folder only its prefix, as ``{"prefix": …}``."""
        return self._listed(self._buckets.place(address), {"delimiter": "/"})

    def stat(self, address: str) -> dict[str, Any]:
        """Return the object at `address` as the store describes it."""
        return self._receiver.stat(self._buckets.place(address))

    def put(
        self, file: str | Path, address: str, *, content_type: str = "", on_progress: OnProgress = no_progress
    ) -> Outcome:
        """Put `file` at `address`, below it under its own name if that is a folder.

        The store is asked first whether it has the content; then no byte is sent.
        """
        source = Path(file)
        place = self._place_of(source, address)
        return self._sender.put(source, place, content_type=content_type, on_progress=on_progress)

    def put_all(
        self, files: Iterable[str | Path], address: str, *, content_type: str = "", meter: Meter = unmetered
    ) -> Generator[Outcome]:
        """Put `files` below `address`, a folder, each under its own name."""

        def put(file: str | Path) -> Outcome:
            name = place.at(place.path + Path(file).name).address
            return attempt(name, lambda: self.put(file, address, content_type=content_type, on_progress=meter(name)))

        place = _folder(self._buckets.place(address))
        return self._in_parallel(put, files)

    def get(self, address: str, file: str | Path = ".", *, on_progress: OnProgress = no_progress) -> Outcome:
        """Write the object at `address` to `file`, under its own name if that is a directory or ends with a slash.

        The file is replaced once the object is whole and verified; what came before a break need not come again.
        """
        place = self._buckets.place(address).require_path()
        target = Path(file)
        # A path forgets the slash at its end.
        if target.is_dir() or str(file).endswith(os.sep):
            target /= PurePosixPath(place.path).name
        return self._receiver.get(place, target, on_progress=on_progress)

    def get_all(self, address: str, directory: str | Path, *, meter: Meter = unmetered) -> Generator[Outcome]:
        """Write all objects below `address` into `directory`."""

        def get(found: dict[str, Any]) -> Outcome:
            place = folder.at(found["path"])
            return attempt(place.address, lambda: fetch(place, found))

        def fetch(place: Place, found: dict[str, Any]) -> Outcome:
            target = _below(Path(directory), place.path.removeprefix(folder.path), place.address)
            return self._receiver.get(place, target, found=found, on_progress=meter(place.address))

        folder = _folder(self._buckets.place(address))
        return self._in_parallel(get, self._listed(folder, {}))

    def verify(self, address: str, *, on_progress: OnProgress = no_progress) -> Outcome:
        """Read the object at `address` and see that its bytes have its SHA-384."""
        return self._receiver.verify(self._buckets.place(address).require_path(), on_progress=on_progress)

    def verify_all(self, address: str, *, meter: Meter = unmetered) -> Generator[Outcome]:
        """Verify all objects below `address`."""

        def verify(found: dict[str, Any]) -> Outcome:
            place = folder.at(found["path"])
            progress = meter(place.address)
            return attempt(place.address, lambda: self._receiver.verify(place, on_progress=progress))

        folder = _folder(self._buckets.place(address))
        return self._in_parallel(verify, self._listed(folder, {}))

    def copy(self, source: str, target: str) -> dict[str, Any]:
        """Have the object at `source` at `target` too and return the latter; no byte is carried."""
        return self._transfer("copy", source, target, repeatable=True)

    def move(self, source: str, target: str) -> dict[str, Any]:
        """Have the object at `source` at `target` instead and return it; no byte is carried."""
        return self._transfer("move", source, target, repeatable=False)

    def remove(self, address: str) -> Outcome:
        """Remove the object at `address`."""
        place = self._buckets.place(address).require_path()
        self._transport.request("DELETE", place.url, repeatable=False)
        return Outcome(place.address, "removed")

    def remove_all(self, address: str) -> Generator[Outcome]:
        """Remove all objects below `address`."""
        folder = _folder(self._buckets.place(address))
        return self._remove(folder, (found["path"] for found in self._listed(folder, {})))

    def sync(
        self,
        directory: str | Path,
        address: str,
        *,
        delete: bool = False,
        dry_run: bool = False,
        meter: Meter = unmetered,
    ) -> Generator[Outcome]:
        """Make what is below `address` what is in `directory`, and yield what becomes of each file.

        Files are compared by length and SHA-384, and read again only when their time, length or inode has changed.
        With `delete` objects that have no file are removed, but none of them if anything failed before. With `dry_run`
        nothing is changed.
        """
        source = Path(directory)
        if not source.is_dir():
            raise NotADirectoryError(20, "There is no such directory", str(directory))
        place = self._buckets.place(address)
        folder = place if place.is_folder else place.at(place.path + "/")
        return self._sync(Mirror(self._sender, self._hashes, source, folder, dry_run, meter), delete)

    def _sync(self, mirror: Mirror, delete: bool) -> Generator[Outcome]:
        failures = 0
        pairs = mirror.pairs(self._listed(mirror.target, {}))
        for outcome in self._in_parallel(mirror.bring, pairs):
            failures += outcome.how == "failed"
            yield outcome
        if delete and not failures:
            yield from self._remove(mirror.target, iter(mirror.spare), dry_run=mirror.dry_run)

    def _remove(self, folder: Place, paths: Iterator[str], *, dry_run: bool = False) -> Generator[Outcome]:
        while some := list(islice(paths, _MANY)):
            if dry_run:
                yield from (Outcome(folder.at(path).address, "to remove") for path in some)
                continue
            for result in self._transport.post(f"{folder.route}/delete", {"paths": some})["results"]:
                address = folder.at(result["path"]).address
                # What is gone already may have been removed by a request whose answer was lost.
                if result["status"] in (204, 404):
                    yield Outcome(address, "removed")
                else:
                    error = Refused(result["status"], result["code"], result["detail"], facts=result)
                    yield Outcome(address, "failed", error=error)

    def _transfer(self, operation: str, source: str, target: str, *, repeatable: bool) -> dict[str, Any]:
        place = self._buckets.place(source).require_path()
        goal = self._place_of(Path(place.path), target)
        wanted = {"source": place.path, "target": goal.path, "target_bucket": goal.bucket}
        return self._transport.post(f"{place.route}/{operation}", wanted, repeatable=repeatable)

    def _place_of(self, file: Path, address: str) -> Place:
        place = self._buckets.place(address)
        return place.at(place.path + file.name) if place.is_folder else place

    def _listed(self, place: Place, query: dict[str, str]) -> Generator[dict[str, Any]]:
        after: str | None = ""
        while after is not None:
            asked = {"prefix": place.path, **query}
            page, after = read_page(self._transport, f"{place.route}/objects/", asked, after)
            yield from ({"prefix": prefix} for prefix in page["prefixes"])
            yield from page["objects"]

    def _in_parallel(self, work: Any, items: Iterable[Any]) -> Generator[Outcome]:
        return in_parallel(work, items, jobs=self.jobs, stop=self._transport.stop)


def _folder(place: Place) -> Place:
    if not place.is_folder:
        raise InvalidAddress(place.address, "end it with a slash to mean all below it")
    return place


def _below(directory: Path, path: str, address: str) -> Path:
    """Return where below `directory` the object goes, or raise `InvalidAddress` if that is somewhere else."""
    target = directory.joinpath(*path.split("/"))
    if any(part in ("", "..", ".") or Path(part).name != part for part in path.split("/")):
        raise InvalidAddress(address, f"its path leads out of {directory}")
    return target
