"""How buckets and objects are written on a command line, and which URLs they have."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from django_blobstore.client.problems import InvalidAddress
from django_blobstore.client.transport import Transport

ROUTES = ("me", "global")


@dataclass(frozen=True)
class Place:
    """An object, or all whose paths begin with `path`: its `address` as it was written, and where its bucket is.

    `route` is "me", "global" or "buckets/" and a UUID.
    """

    address: str
    route: str
    path: str

    @property
    def url(self) -> str:
        """Where the object is, below the store's URL."""
        return f"{self.route}/objects/{quote(self.path, safe='/')}"

    @property
    def bucket(self) -> str:
        """The bucket as operations name it: a UUID, "me" or "global"."""
        return self.route.rpartition("/")[2]

    @property
    def is_folder(self) -> bool:
        return not self.path or self.path.endswith("/")

    def at(self, path: str) -> Place:
        """Return the place of another `path` in the same bucket."""
        bucket = self.address.partition("/")[0]
        return Place(f"{bucket}/{path}", self.route, path)

    def require_path(self) -> Place:
        """Return this place, or raise `InvalidAddress` if it names no object."""
        if self.is_folder:
            raise InvalidAddress(self.address, "it names a folder; say bucket/path of an object")
        # In a URL they would lead to another one: `rm bucket/..` to the bucket itself.
        if {"", ".", ".."} & set(self.path.split("/")):
            raise InvalidAddress(self.address, "the path has an empty, '.' or '..' segment; choose another path")
        try:
            self.path.encode()
        except UnicodeEncodeError:
            raise InvalidAddress(self.address, "the path is not UTF-8; rename the file") from None
        return self


class Buckets:
    """Finds out which bucket a name stands for, and remembers it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._routes: dict[str, str] = {}

    def place(self, address: str) -> Place:
        """Return what `address` names: ``bucket/path``, where the bucket is a UUID, a name, "me" or "global"."""
        bucket, _, path = address.partition("/")
        if not bucket:
            raise InvalidAddress(address, "say bucket/path, where bucket is a name, a UUID, 'me' or 'global'")
        if bucket not in self._routes:
            self._routes[bucket] = self._route(address, bucket)
        return Place(address, self._routes[bucket], path)

    def require_new(self, name: str) -> None:
        """Raise `InvalidAddress` if a new bucket called `name` could not be told by its name."""
        if "/" in name or name in ROUTES or _is_uuid(name):
            raise InvalidAddress(name, "it would not lead to a bucket of that name; choose another name")
        if found := self._called(name.strip()):
            raise InvalidAddress(name, f"it would name two buckets, as there is {found[0]}; choose another name")

    def _route(self, address: str, bucket: str) -> str:
        if bucket in ROUTES:
            return bucket
        if _is_uuid(bucket):
            return f"buckets/{uuid.UUID(bucket)}"
        found = self._called(bucket)
        if not found:
            raise InvalidAddress(address, f"you see no bucket called {bucket!r}; name one of others by its UUID")
        if len(found) > 1:
            raise InvalidAddress(address, f"several buckets are called {bucket!r}; say which: {', '.join(found)}")
        return f"buckets/{found[0]}"

    def _called(self, name: str) -> list[str]:
        """Return the UUIDs of the buckets called `name`."""
        # A store of an earlier version lists them all.
        return [found["uuid"] for found in self._listed({"name": name}) if found["name"] == name]

    def all(self) -> list[dict[str, Any]]:
        """Return every bucket that is listed for the user."""
        return self._listed({})

    def _listed(self, query: dict[str, str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            page, after = read_page(self._transport, "buckets/", query, after)
            found += page["buckets"]
        return found


def read_page(transport: Transport, path: str, query: dict[str, str], after: str) -> tuple[dict[str, Any], str | None]:
    """Return a page of a list and what the next one comes after, None if there is none."""
    asked = {"limit": "1000", **query, **({"after": after} if after else {})}
    page = transport.request("GET", path, params=asked).json()
    # The host in `next` is not asked: only the one that the user named gets the credentials.
    return page, parse_qs(urlsplit(page["next"]).query)["after"][0] if page["next"] else None


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
