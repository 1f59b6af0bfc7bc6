"""How commands are told which objects are meant: of a bucket, of a user, of a user in a bucket, or global."""

from __future__ import annotations

from argparse import ArgumentParser

from django_blobstore.namespaces import Namespace


def add_namespace(parser: ArgumentParser) -> None:
    """Add the options ``--bucket``, ``--user`` and ``--global``."""
    parser.add_argument("--bucket", default="", help="Name or UUID of the bucket.")
    parser.add_argument("--user", default="", help="Key of the user, in the bucket if there is one.")
    parser.add_argument("--global", action="store_true", dest="is_global", help="Outside all buckets and users.")


def namespace_of(bucket: str, user: str, is_global: bool) -> Namespace | None:
    """Return what the options say, None if they say nothing. Raises `ValueError` if they contradict each other."""
    if is_global and (bucket or user):
        raise ValueError("--global is without --bucket and --user.")
    return Namespace(bucket=bucket, user=user) if bucket or user or is_global else None
