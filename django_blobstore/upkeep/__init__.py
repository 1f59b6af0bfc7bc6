"""What must be done from time to time so that nothing unneeded stays and nothing needed is lost unnoticed."""

from django_blobstore.upkeep.audit import AuditReport, audit
from django_blobstore.upkeep.findings import Finding, Findings, Kind, Tally
from django_blobstore.upkeep.measure import measure
from django_blobstore.upkeep.scrub import ScrubReport, scrub, verify
from django_blobstore.upkeep.steps import advance, begin
from django_blobstore.upkeep.sweep import SweepReport, expunge, expunge_quietly, sweep

__all__ = [
    "AuditReport",
    "Finding",
    "Findings",
    "Kind",
    "ScrubReport",
    "SweepReport",
    "Tally",
    "advance",
    "audit",
    "begin",
    "expunge",
    "expunge_quietly",
    "measure",
    "scrub",
    "sweep",
    "verify",
]
