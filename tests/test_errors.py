"""The error tree: what it holds, and that each error carries and says what it speaks of."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import pytest

from django_blobstore import errors
from django_blobstore.errors import BlobstoreError

HASH = "ab" * 48

RAISED: dict[str, dict[str, Any]] = {
    "BlobstoreError": {},
    "ResourceNotFound": {"key": "a/b"},
    "BucketNotFound": {"bucket": "photos"},
    "ResourceDeleted": {"sha384": HASH},
    "UploadPending": {"key": "a/b", "retry_after": 7},
    "AlreadyUploaded": {"id": 41, "path": "aa/bb"},
    "ContentError": {},
    "LengthMismatch": {"expected": 10, "actual": 9},
    "HashMismatch": {"expected": HASH, "actual": "cd" * 48, "algorithm": "sha384"},
    "PartMismatch": {"expected": HASH, "actual": "cd" * 48, "algorithm": "sha384"},
    "ContentTooLarge": {"limit": 1000},
    "InvalidName": {"value": "..", "reason": "it leads elsewhere"},
    "InvalidPath": {"value": "..", "reason": "it leads elsewhere"},
    "InvalidHash": {"value": "xyz", "reason": "it is no hex"},
    "InvalidNamespace": {"value": "u" * 151, "reason": "it is too long"},
    "InvalidContentType": {"value": "t" * 256, "reason": "it is too long"},
    "InvalidMetadata": {"value": "x", "reason": "it has a NUL character"},
    "ProofError": {},
    "RequestExpired": {"request_id": "r1"},
    "RequestNotFound": {"request_id": "r1"},
    "ResponseMismatch": {"request_id": "r1"},
    "TooManyFailures": {"sha384": HASH, "retry_after": 3600},
    "ContentDamaged": {"sha384": HASH, "path": "a/b", "reason": "it ends early"},
    "ConditionFailed": {"path": "a/b", "sha384": HASH},
    "QuotaExceeded": {"bucket": "photos", "quota": 100, "length": 101},
    "LeaseLost": {"path": "aa/bb"},
    "ResumableError": {},
    "UploadNotFound": {"upload_id": "u1"},
    "UploadExpired": {"upload_id": "u1"},
    "UploadLocked": {"upload_id": "u1", "retry_after": 3},
    "UploadUnfinished": {"upload_id": "u1"},
    "OffsetMismatch": {"expected": 10, "actual": 9},
    "CountBypassed": {"action": "ManagedResource.delete()"},
    "CatalogBusy": {"attempts": 5},
}


def defined() -> dict[str, type[BlobstoreError]]:
    classes = inspect.getmembers(errors, inspect.isclass)
    return {name: value for name, value in classes if value.__module__ == errors.__name__}


def drawn() -> dict[str, str]:
    """Return each error of the tree in the docstring with the one it hangs from."""
    parents: dict[str, str] = {}
    branch: list[str] = []
    for line in re.findall(r"^ {4}([│├└─ ]*\w+)", inspect.getdoc(errors) or "", re.MULTILINE):
        name = line.lstrip("│├└─ ")
        depth = (len(line) - len(name)) // 4
        branch[depth:] = [name]
        parents[name] = branch[depth - 1] if depth else "Exception"
    return parents


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert drawn() == {name: cls.__bases__[0].__name__ for name, cls in defined().items()}


def test_these_tests_speak_of_every_error() -> None:
    assert set(RAISED) == set(defined())


@pytest.mark.parametrize("name", list(RAISED))
def test_an_error_carries_what_it_speaks_of(name: str) -> None:
    error = getattr(errors, name)(**RAISED[name])
    for attribute, value in RAISED[name].items():
        assert getattr(error, attribute) == value


@pytest.mark.parametrize("name", [name for name, values in RAISED.items() if values])
def test_an_error_says_a_sentence_without_any_value_left_out(name: str) -> None:
    values = RAISED[name]
    said = str(getattr(errors, name)(**values))
    assert re.match(r"[A-Z].*\.$", said)
    assert all(str(value) in said for value in values.values())


@pytest.mark.parametrize("name", list(RAISED))
def test_an_error_survives_the_way_between_processes(name: str) -> None:
    error = getattr(errors, name)(**RAISED[name])
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert (str(arrived), vars(arrived)) == (str(error), vars(error))


@pytest.mark.parametrize("name", [name for name in RAISED if name.startswith("Invalid")])
def test_a_name_that_can_never_be_is_also_a_value_error(name: str) -> None:
    assert issubclass(getattr(errors, name), ValueError)
