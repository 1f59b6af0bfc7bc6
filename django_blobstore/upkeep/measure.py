"""What the dashboard tells that only a look at all rows can know: measured now and then, by a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from heapq import nlargest
from operator import itemgetter
from typing import Any
from uuid import UUID

from django.db import router
from django.db.models import Count, F, OuterRef, QuerySet, Subquery, Sum, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from django_blobstore.models import (
    Bucket,
    ManagedResource,
    Measurement,
    Ranking,
    Resource,
    Totals,
    Usage,
    start_of_day,
)
from django_blobstore.transactions import transact

TOTALS_EVERY = timedelta(hours=1)
RANKED_EVERY = timedelta(days=1)
RANKED = 10
BATCH = 1000

Entry = dict[str, Any]


def measure() -> None:
    """Write down the totals of the day and the rankings, of each bucket and of the whole store."""
    for _ in measuring():
        pass


def measuring(done: int = 0) -> Iterator[int]:
    """Do the same, but for the first `done` parts of it; yield after each of the `PARTS` how many are done."""
    using = router.db_for_write(Measurement)
    work = [partial(_measure_totals, using), *(partial(_rank, using, by) for by in _RANKED)]
    for number, part in enumerate(work[done:], done + 1):
        transact(using, part)
        yield number


def measuring_what_is_due() -> Iterator[None]:
    """Write down the totals if they are an hour old and rankings that are a day old, and pause after each."""
    using = router.db_for_write(Measurement)
    now = timezone.now()
    if not Measurement.objects.using(using).filter(bucket=None, measured_at__gt=now - TOTALS_EVERY).exists():
        transact(using, partial(_measure_totals, using))
        yield
    recent = Ranking.objects.using(using).filter(bucket=None, measured_at__gt=now - RANKED_EVERY)
    for by in _RANKED.keys() - set(recent.values_list("by", flat=True)):
        transact(using, partial(_rank, using, by))
        yield


def _measure_totals(using: str) -> None:
    rows = Measurement.objects.using(using)
    now, today = timezone.now(), start_of_day().date()
    rows.update_or_create(bucket=None, day=today, defaults={"measured_at": now, **_whole_store(using)._asdict()})
    changed = list(_changed_buckets(using))
    for first in range(0, len(changed), BATCH):
        batch = changed[first : first + BATCH]
        rows.filter(bucket__in=[key for key, _ in batch], day=today).delete()
        rows.bulk_create(
            Measurement(bucket_id=key, measured_at=now, day=today, **totals._asdict()) for key, totals in batch
        )
    rows.forgettable().delete()


def _whole_store(using: str) -> Totals:
    kept = Usage.objects.using(using).totals()
    stored = Resource.objects.using(using).exclude(path="").aggregate(bytes=Sum("length"))["bytes"]
    return kept._replace(stored_bytes=stored or 0)


def _changed_buckets(using: str) -> Iterable[tuple[UUID, Totals]]:
    """Yield each bucket whose totals are others than those written down last."""
    noted = Measurement.objects.filter(bucket=OuterRef("pk")).order_by("-day")
    last = {f"last_{column}": Subquery(noted.values(column)[:1]) for column in Totals._fields}
    for bucket in Bucket.objects.using(using).with_usage().annotate(**last).values("pk", *Totals._fields, *last):
        totals = Totals(*(bucket[column] for column in Totals._fields))
        if totals != tuple(bucket[f"last_{column}"] or 0 for column in Totals._fields):
            yield bucket["pk"], totals


def _rank(using: str, by: str) -> None:
    now = timezone.now()
    rows = Ranking.objects.using(using)
    rows.filter(by=by).delete()
    rows.bulk_create(
        (Ranking(bucket_id=key, by=by, measured_at=now, entries=listed) for key, listed in _RANKED[by](using).items()),
        batch_size=BATCH,
    )


def _largest(using: str) -> dict[UUID | None, list[Entry]]:
    """Return the largest objects of each bucket, and, under None, of all."""
    objects = ManagedResource.objects.using(using).order_by()
    place = Window(RowNumber(), partition_by=[F("bucket")], order_by=[F("resource__length").desc(), F("pk").asc()])
    found = objects.annotate(place=place).filter(place__lte=RANKED)
    ranked: dict[UUID | None, list[Entry]] = {}
    for key, pk, path, length in found.values_list("bucket", "pk", "path", "resource__length"):
        ranked.setdefault(key, []).append({"id": pk, "path": path, "length": length})
    everything = [entry for entries in ranked.values() for entry in entries]
    return _in_order({**ranked, None: everything}, "length")


def _most_shared(using: str) -> dict[UUID | None, list[Entry]]:
    """Return the contents with the most objects in each bucket, and, under None, with the most references at all."""
    contents = ManagedResource.objects.using(using).filter(bucket__isnull=False).order_by().values("bucket", "resource")
    shared = contents.annotate(count=Count("pk")).filter(count__gt=1)
    place = Window(RowNumber(), partition_by=[F("bucket")], order_by=[F("count").desc(), F("resource").asc()])
    columns = ("bucket", "resource", "resource__sha384", "resource__length", "count")
    ranked: dict[UUID | None, list[Entry]] = {}
    for key, pk, sha384, length, count in shared.annotate(place=place).filter(place__lte=RANKED).values_list(*columns):
        ranked.setdefault(key, []).append({"id": pk, "sha384": sha384, "length": length, "count": count})
    return _in_order({**ranked, None: _most_referred_to(using)}, "count")


def _most_referred_to(using: str) -> list[Entry]:
    shared: QuerySet[Resource] = Resource.objects.using(using).filter(reference_count__gt=1)
    first = shared.order_by("-reference_count", "pk")[:RANKED]
    return [{"id": one.pk, "sha384": one.sha384, "length": one.length, "count": one.reference_count} for one in first]


def _largest_buckets(using: str) -> dict[UUID | None, list[Entry]]:
    """Return, under None, the buckets with the most stored bytes."""
    buckets: QuerySet[Any] = Bucket.objects.using(using).with_usage()
    first = [
        {"id": str(bucket.pk), "name": str(bucket), **{column: getattr(bucket, column) for column in Totals._fields}}
        for bucket in buckets.order_by("-stored_bytes", "pk")[:RANKED]
    ]
    return {None: first}


def _in_order(ranked: dict[UUID | None, list[Entry]], by: str) -> dict[UUID | None, list[Entry]]:
    return {key: nlargest(RANKED, entries, key=itemgetter(by)) for key, entries in ranked.items()}


_RANKED: dict[str, Callable[[str], dict[UUID | None, list[Entry]]]] = {
    Ranking.By.LENGTH: _largest,
    Ranking.By.COUNT: _most_shared,
    Ranking.By.STORED: _largest_buckets,
}
PARTS = 1 + len(_RANKED)
