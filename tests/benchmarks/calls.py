"""What a small request costs besides waiting: how many functions run, of which package, and for which step.

Run ``python -m tests.benchmarks.calls``. Requests go to the WSGI application in this process, as the owner of a bucket
with a token; the catalog is in PostgreSQL. Counts are the same in every run, so no noise hides anything.
"""

from __future__ import annotations

import cProfile
import io
import os
import pstats
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.ground import deployment

Request = Callable[[str, str, bytes], int]

TIMES = 20
KIB = 1024
# Functions within which a step happens, by the end of their module's path.
STEPS = {
    "authentication by token": ("rest_framework/authentication.py", "authenticate"),
    "the object's row": ("django_blobstore/rows.py", "find_object"),
    "the chunks": ("django_blobstore/storages/gridfs_reader.py", "read_directly"),
    "the row of the arriving file, committed": ("django_blobstore/arrival.py", "__enter__"),
    "writing to GridFS": ("django_blobstore/storages/gridfs.py", "save_named"),
    "the transaction that refers to it": ("django_blobstore/catalog/resource_catalog.py", "refer"),
    "permission for reference_count": ("django_blobstore/rest/serializers.py", "_may_see_counts"),
}


def main() -> None:
    with deployment(postgresql=True, DELETION_GRACE=0), application() as ask:
        for number in range(TIMES):
            ask("PUT", f"warm/{number}", os.urandom(4 * KIB))
            ask("GET", f"warm/{number}", b"")
        report("GET 4 KiB", lambda number: ask("GET", f"warm/{number}", b""))
        report("PUT 4 KiB, new", lambda number: ask("PUT", f"new/{number}", os.urandom(4 * KIB)))


@contextmanager
def application() -> Iterator[Request]:
    """Yield what makes a request for an object of a bucket and returns the length of the answer."""
    from django.contrib.auth import get_user_model
    from django.core.wsgi import get_wsgi_application
    from rest_framework.authtoken.models import Token

    from django_blobstore.models import Bucket

    user = get_user_model().objects.create(username="owner")
    token = Token.objects.create(user=user)
    bucket = Bucket.objects.create(name="benchmark", owner=user)
    site = get_wsgi_application()

    def ask(method: str, path: str, body: bytes) -> int:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": f"/api/buckets/{bucket.pk}/objects/{path}",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "HTTP_AUTHORIZATION": f"Token {token.key}",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.url_scheme": "http",
        }
        answer = site(environ, lambda status, headers, exc_info=None: print(end=""))
        try:
            return sum(map(len, answer))
        finally:
            answer.close()

    yield ask


def report(work: str, do: Callable[[int], object]) -> None:
    profile = cProfile.Profile()
    profile.enable()
    for number in range(TIMES):
        do(number)
    profile.disable()
    stats: Any = pstats.Stats(profile)
    print(f"\n{work}: {stats.total_calls / TIMES:.0f} calls")
    packages: Counter[str] = Counter()
    for (file, _, _), (_, calls, *_) in stats.stats.items():
        packages[package_of(file)] += calls
    for package, calls in packages.most_common(9):
        print(f"  {calls / TIMES:6.0f}  {package}")
    print("  of them within")
    for step, (file, name) in STEPS.items():
        if within := sum(below(stats.stats, key) for key in stats.stats if key[0].endswith(file) and key[2] == name):
            print(f"  {within / TIMES:6.0f}  {step}")


def package_of(file: str) -> str:
    parts = Path(file).parts
    if file.startswith("~"):
        return "built-in functions"
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    return "django_blobstore" if "django_blobstore" in parts else "the standard library"


def below(stats: dict[Any, Any], top: Any) -> float:
    """Return how many calls happened beneath `top`, sharing those of a function among its callers by their calls."""
    called: dict[Any, list[tuple[Any, int]]] = {}
    for key, (*_, callers) in stats.items():
        for caller, (_, calls, *_) in callers.items():
            called.setdefault(caller, []).append((key, calls))
    known: dict[Any, float] = {}

    def calls_of(key: Any, path: frozenset[Any]) -> float:
        if key in path:
            return 0
        if key not in known:
            known[key] = sum(
                calls * (1 + calls_of(callee, path | {key}) / stats[callee][1]) for callee, calls in called.get(key, ())
            )
        return known[key]

    return calls_of(top, frozenset())


if __name__ == "__main__":
    main()
