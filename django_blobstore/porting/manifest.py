"""What an export says of its files: a JSON object in a line for each, and sums that ``sha384sum -c`` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import sha256, sha384
from pathlib import Path
from typing import IO, Any, Self

from django_blobstore.digests import clean_hash
from django_blobstore.models import ManagedResource
from django_blobstore.namespaces import Namespace
from django_blobstore.resource_storage import BLOCK_SIZE

MANIFEST = "manifest.jsonl"
SUMS = "SHA384SUMS"

# The longest name that common file systems can have in a folder, in bytes.
MAX_NAME_BYTES = 255


@dataclass(frozen=True)
class Line:
    """One object: its bytes are `length` long, have the hash `sha384` (hex), and lie in `file` beside the manifest.

    `bucket` is its UUID or "", `modified_at` an ISO 8601 time.
    """

    path: str
    file: str
    length: int
    sha384: str
    content_type: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    bucket: str = ""
    user: str = ""
    modified_at: str = ""

    @classmethod
    def of(cls, managed: ManagedResource, file: str) -> Self:
        resource = managed.resource
        return cls(
            managed.path,
            file,
            resource.length,
            resource.sha384,
            managed.content_type,
            managed.metadata,
            str(managed.bucket_id or ""),
            managed.user,
            managed.modified_at.isoformat(),
        )

    @classmethod
    def parse(cls, text: bytes | str) -> Self:
        """Return the line `text`; keys of later versions are passed over. Raises `ValueError` if it is none."""
        said = json.loads(text)
        known = {name: said[name] for name in cls.__dataclass_fields__ if name in said} if type(said) is dict else {}
        wanted = {"path": str, "file": str, "length": int, "sha384": str}
        if not all(type(known.get(name)) is kind for name, kind in wanted.items()):
            raise ValueError("a line of a manifest has at least path, file, length and sha384")
        clean_hash(known["sha384"])
        if known["length"] < 0:
            raise ValueError("a length is not negative")
        return cls(**known)

    @property
    def namespace(self) -> Namespace:
        return Namespace(bucket=self.bucket, user=self.user)

    @property
    def modified(self) -> float:
        """When it was written last, in seconds since 1970."""
        return datetime.fromisoformat(self.modified_at).timestamp()

    def __bytes__(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"


class FileNames:
    """Names of files for paths that come in byte order: the path itself, where a file system can have it."""

    def __init__(self) -> None:
        # The paths so far that the next ones may start with; a file among them cannot be a folder too.
        self._beginnings: list[str] = []

    def name(self, path: str) -> str:
        """Return the name of the file for `path`; call it once for each, in order."""
        while self._beginnings and not path.startswith(self._beginnings[-1]):
            self._beginnings.pop()
        is_within_file = any(path.startswith(f"{beginning}/") for beginning in self._beginnings)
        self._beginnings.append(path)
        is_too_long = any(len(segment.encode()) > MAX_NAME_BYTES for segment in path.split("/"))
        return f"others/{sha256(path.encode()).hexdigest()}" if is_within_file or is_too_long else f"objects/{path}"


def whole_lines(manifest: IO[bytes]) -> Iterator[Line]:
    """Yield the lines of `manifest`, open for reading and writing, and cut off one that was not finished."""
    end = 0
    for text in manifest:
        if not text.endswith(b"\n"):
            break
        yield Line.parse(text)
        end += len(text)
    manifest.truncate(end)
    manifest.seek(end)


def write_sums(lines: Iterable[bytes], manifest: Path, sums: IO[bytes]) -> None:
    """Write to `sums` the hash of each file that `lines` speak of, and of the `manifest` itself."""
    for text in lines:
        line = Line.parse(text)
        sums.write(_sum(line.sha384, line.file))
    whole = sha384(usedforsecurity=False)
    with manifest.open("rb") as file:
        while block := file.read(BLOCK_SIZE):
            whole.update(block)
    sums.write(_sum(whole.hexdigest(), MANIFEST))


def _sum(sha384: str, file: str) -> bytes:
    # As sha384sum writes names with backslashes itself.
    mark, name = ("\\", file.replace("\\", "\\\\")) if "\\" in file else ("", file)
    return f"{mark}{sha384}  {name}\n".encode()
