"""The only reader of ``settings.BLOBSTORE``: what each setting means, its default and what it accepts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Generic, TypeVar

from django.conf import settings

T = TypeVar("T")

_UPKEEP = {"sweep", "scrub", "audit"}
_ORIGIN = re.compile(r"https?://[^/?#@\s]+")


class Setting(Generic[T]):
    """One key of ``settings.BLOBSTORE``, read anew at each access.

    `accepts` says whether a value is usable and `expects` says the same in words.
    """

    def __init__(
        self, default: T | Callable[[], T], meaning: str, *, accepts: Callable[[Any], bool], expects: str
    ) -> None:
        self.default = default
        self.meaning = meaning
        self.accepts = accepts
        self.expects = expects

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> T:
        given = given_settings()
        # Of anything but a dict a check says that it is none, and must get that far.
        if isinstance(given, dict) and self.name in given:
            value: T = given[self.name]
            return value
        return self.default() if callable(self.default) else self.default


def given_settings() -> Mapping[str, Any]:
    """Return ``settings.BLOBSTORE`` as the project wrote it, or an empty mapping."""
    given: Mapping[str, Any] = getattr(settings, "BLOBSTORE", {})
    return given


def _default_alias() -> str:
    return "blobstore" if "blobstore" in settings.STORAGES else "default"


def _is_seconds(value: Any) -> bool:
    # No date is infinitely far away.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < inf


def _is_positive_seconds(value: Any) -> bool:
    return _is_seconds(value) and value > 0


def _one_of(*choices: str) -> dict[str, Any]:
    return {"accepts": choices.__contains__, "expects": "one of " + ", ".join(repr(choice) for choice in choices)}


def _is_location(item: tuple[Any, Any]) -> bool:
    return all(isinstance(text, str) for text in item) and re.fullmatch("/|/.*/", item[1]) is not None


class Settings:
    """Every setting, as an attribute of its own name; durations are seconds, lengths are bytes."""

    STORAGE = Setting[str](
        _default_alias,
        "Alias in STORAGES that keeps the bytes. Unset: 'blobstore' if STORAGES has it, else 'default'.",
        accepts=lambda value: isinstance(value, str),
        expects="an alias in STORAGES",
    )
    DEDUP_SCOPE = Setting[str](
        "global",
        "Who shares equal content: everybody ('global'), the buckets of one owner ('owner'), one bucket ('bucket'), or "
        "what a dotted callable says: it takes a Namespace and returns the scope, a string of at most 200 characters.",
        accepts=lambda value: isinstance(value, str) and (value in ("global", "owner", "bucket") or "." in value),
        expects="'global', 'owner', 'bucket' or the dotted path of a callable",
    )
    GRANTED_BUCKETS = Setting[str](
        "",
        "Where a backend of object permissions grants something on single buckets, what finds those buckets for the "
        "lists of the admin: the dotted path of a callable that takes a user and a permission, such as "
        "'django_blobstore.view_managedresource', and returns UUIDs. Unset: the backend is asked about 100 buckets, "
        "one by one.",
        accepts=lambda value: value == "" or (isinstance(value, str) and "." in value),
        expects="the dotted path of a callable, or ''",
    )
    PROOF_PROTOCOL = Setting[str](
        "hmac",
        "What a holder answers: 'hmac' (keyed, many ranges), or 'seed' (plain SHA-384 of one range, for old clients).",
        **_one_of("hmac", "seed"),
    )
    PROOF_SCOPE = Setting[str](
        "global",
        "Whose data may be claimed by proof: anybody's ('global'), what one may read ('readable'), nobody's ('off').",
        **_one_of("global", "readable", "off"),
    )
    PROOF_LIFETIME = Setting[float](
        60, "Seconds in which a put request can be answered.", accepts=_is_positive_seconds, expects="seconds above 0"
    )
    DELETION_GRACE = Setting[float](
        300,
        "Seconds for which unreferenced bytes stay, so that readers can finish; 0 deletes right after the commit.",
        accepts=_is_seconds,
        expects="seconds, 0 or more",
    )
    LEASE = Setting[float](
        600,
        "Seconds without progress after which an upload counts as dead; a live one renews every third of it.",
        accepts=_is_positive_seconds,
        expects="seconds above 0",
    )
    UPLOAD_LIFETIME = Setting[float](
        86400,
        "Seconds for which a resumable upload waits for its next bytes before a sweep deletes what has come.",
        accepts=_is_positive_seconds,
        expects="seconds above 0",
    )
    UPKEEP_EVERY = Setting[Mapping[str, float]](
        {"sweep": 600, "scrub": 86400, "audit": 604800},
        "Seconds after the end of a sweep, scrub or audit from which the dashboard says that the next one is due; it "
        "runs none by itself. A kind that is left out is never due.",
        accepts=lambda value: (
            isinstance(value, dict) and value.keys() <= _UPKEEP and all(map(_is_seconds, value.values()))
        ),
        expects="a dict with the keys 'sweep', 'scrub' and 'audit' and seconds as values",
    )
    SIGNED_URL_LIFETIME = Setting[float](
        604800,
        "Seconds for which a signed URL, which lets anybody who has it read one object, may be valid at most.",
        accepts=_is_positive_seconds,
        expects="seconds above 0",
    )
    MAX_LENGTH = Setting[int | None](
        None,
        "Longest content in bytes, or None for no limit.",
        accepts=lambda value: value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0),
        expects="bytes, 0 or more, or None",
    )
    SERVE_METHOD = Setting[str](
        "stream",
        "Who sends an object's bytes in answer to a REST request that we allowed: we do, reading and verifying them "
        "('stream'); the storage, at a signed URL that the client is sent to ('redirect', S3); nginx ('x-accel', files "
        "and S3); Apache or lighttpd ('x-sendfile', files). Only 'stream' verifies on the way; have `blobstore_scrub` "
        "run beside the others. What cannot be handed over is streamed. See serving.md.",
        **_one_of("stream", "redirect", "x-accel", "x-sendfile"),
    )
    SERVE_LOCATION = Setting[Mapping[str, str]](
        {},
        "For 'x-accel': nginx's internal location for each storage, by alias, such as {'blobstore': '/kept/'}. Objects "
        "in other storages are streamed.",
        accepts=lambda value: isinstance(value, dict) and all(map(_is_location, value.items())),
        expects="a dict of aliases in STORAGES and of locations that begin and end with a slash",
    )
    CONTENT_HOST = Setting[str](
        "",
        "Where what users uploaded is sent from, such as 'https://content.example.net': another name of this site, "
        "without cookies or pages. A GET of an object leads to a signed URL there, and "
        "`django_blobstore.rest.content_host.ContentHostMiddleware` has it answer nothing else. Unset: from here.",
        accepts=lambda value: value == "" or (isinstance(value, str) and _ORIGIN.fullmatch(value) is not None),
        expects="a scheme and a host, without a slash at the end, or ''",
    )


conf = Settings()

KNOWN: dict[str, Setting[Any]] = {
    name: setting for name, setting in vars(Settings).items() if isinstance(setting, Setting)
}
