"""Which figures of the store Prometheus is told, through prometheus-client (extra `prometheus`)."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from django_blobstore.models import Measurement, PendingFile, Resource, UpkeepRun, Usage


class BlobstoreCollector(Collector):
    """Asks the catalog at each scrape: register one per site, ``REGISTRY.register(BlobstoreCollector())``.

    All are sums that the catalog keeps, or counts of what an index holds alone, so that a scrape costs as little for
    a million objects as for one. What is stored is as old as the last measurement, which a sweep makes each hour.
    """

    def collect(self) -> Iterator[GaugeMetricFamily]:
        totals = Usage.objects.all().totals()
        yield _gauge("objects", "Objects, in all namespaces.", totals.object_count)
        yield _gauge("logical_bytes", "Bytes of all objects, each counted.", totals.logical_bytes)
        measured = Measurement.objects.of(None).last()
        if measured:
            yield _gauge("stored_bytes", "Bytes of all contents, each counted once.", measured.stored_bytes)
        yield _gauge(
            "damaged_contents", "Contents whose bytes are wrong or missing.", Resource.objects.damaged().count()
        )
        yield self._pending_files()
        yield self._last_runs()

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing, so that to register a collector asks no database."""
        return iter(())

    def _pending_files(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily("blobstore_pending_files", "Files on their way in or out.", labels=["state"])
        files = PendingFile.objects.all()
        for state in ("arriving", "abandoned", "waiting", "due"):
            family.add_metric([state], getattr(files, state)().count())
        return family

    def _last_runs(self) -> GaugeMetricFamily:
        what = "When upkeep of each kind was last done, in seconds since 1970."
        family = GaugeMetricFamily("blobstore_last_run_timestamp_seconds", what, labels=["kind"])
        for kind in UpkeepRun.Kind.values:
            ended = UpkeepRun.objects.filter(kind=kind, error="", ended_at__isnull=False).order_by("-pk").first()
            if ended and ended.ended_at:
                family.add_metric([kind], ended.ended_at.timestamp())
        return family


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"blobstore_{name}", documentation, value=value)
