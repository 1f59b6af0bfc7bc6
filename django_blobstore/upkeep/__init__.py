"""What must be done from time to time so that nothing unneeded stays."""

from django_blobstore.upkeep.sweep import SweepReport, expunge, sweep

__all__ = ["SweepReport", "expunge", "sweep"]
