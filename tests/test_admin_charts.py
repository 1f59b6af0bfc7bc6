"""Where the lines and ticks of a chart are, and how durations are written."""

from __future__ import annotations

from datetime import date

import pytest

from django_blobstore.admin.charts import growth, share
from django_blobstore.templatetags.blobstore_admin import human_duration

KIB = 1024


def test_lines_are_level_until_a_change_and_ticks_are_round() -> None:
    points = [(date(2026, 1, 1), 0), (date(2026, 1, 6), 3 * KIB)]
    chart = growth(date(2026, 1, 1), date(2026, 1, 10), [("stored", "stored", points)])
    assert chart.lines[0].path == "M84.0 268.0H314.0V76.0H544.0"
    assert [tick.label.replace("\xa0", " ") for tick in chart.up] == [
        "0 bytes", "1.0 KB", "2.0 KB", "3.0 KB", "4.0 KB"
    ]  # fmt: skip


def test_the_last_day_is_as_wide_as_the_others() -> None:
    chart = growth(date(2026, 1, 1), date(2026, 1, 10), [("stored", "stored", [(date(2026, 1, 10), 4 * KIB)])])
    assert chart.lines[0].path == "M498.0 12.0H544.0"


def test_a_bar_is_as_wide_as_its_share() -> None:
    assert (share(1, 4), share(4, 4), share(0, 0)) == ("25.0", "100.0", "0")


@pytest.mark.parametrize("days", [30, 90, 365])
def test_no_more_days_are_named_than_there_is_room_for(days: int) -> None:
    chart = growth(date(2026, 1, 1), date.fromordinal(date(2026, 1, 1).toordinal() + days), [])
    assert 2 < len(chart.across) <= 7


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (90, "1 minute, 30 seconds"),
        (300, "5 minutes"),
        (3600, "1 hour"),
        (90_061, "1 day, 1 hour"),
        (1_209_600.0, "14 days"),
    ],
)
def test_how_long_something_lasts_is_written_in_units_people_think_in(seconds: float, shown: str) -> None:
    assert human_duration(seconds) == shown
