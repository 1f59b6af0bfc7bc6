"""How findings are told while they come: as lines, or as one JSON document that is never in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from django.core.management.base import OutputWrapper

from django_blobstore.management.wording import Bar, sized
from django_blobstore.upkeep import Finding, Findings

LINES = 100


class Teller:
    """Tells each finding and, at the end, how many there were; with `as_json` in one document on `stdout`."""

    def __init__(self, stdout: OutputWrapper, bar: Bar, *, as_json: bool, verbosity: int) -> None:
        self._stdout = stdout
        self._bar = bar
        self._as_json = as_json
        self._most = {0: 0, 1: LINES}.get(verbosity, float("inf"))
        self._told = 0
        if as_json:
            stdout.write('{"findings": [', ending="")

    def tell(self, finding: Finding) -> None:
        self._told += 1
        if self._as_json:
            self._stdout.write(f"{',' * (self._told > 1)}\n{json.dumps(asdict(finding))}", ending="")
        elif self._told <= self._most:
            self._bar.clear()
            self._stdout.write(_line(finding))

    def finish(self, summary: Mapping[str, Any], findings: Findings, headline: str) -> None:
        """End with the `summary` in JSON, or with the `headline` and a line for each kind."""
        self._bar.clear()
        if self._as_json:
            kinds = {kind.value: asdict(tally) for kind, tally in findings.tallies.items()}
            document = json.dumps({**summary, "kinds": kinds, "left": findings.left})
            self._stdout.write(f'\n], "summary": {document}}}')
        elif self._most:
            if self._told > self._most:
                self._stdout.write(f"… and {self._told - LINES:,} more; --verbosity=2 or --json tells all.")
            self._stdout.write(headline)
            for kind, tally in findings.tallies.items():
                fixed = f", {tally.fixed:,} fixed" if tally.fixed else ""
                self._stdout.write(f"  {kind.value}: {tally.found:,}, {sized(tally.bytes)}{fixed}")


def _line(finding: Finding) -> str:
    where = f" in {finding.storage}" if finding.storage else ""
    detail = f" ({finding.detail})" if finding.detail else ""
    return f"{finding.kind.value}{' fixed' if finding.fixed else ''}: {finding.name}{where}{detail}"
