"""When scenes were taken: from the scene, from its name, or as the user says."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from warte.core.errors import InputError
from warte.earth.scene import Scene

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
FIRST_YEAR, LAST_YEAR = 1930, 2100
_YEAR = r"(?<!\d)((?:19|20)\d\d)"
# A Landsat scene of the old naming: sensor, path (3), row (3), year (4), day of the year (3).
_LANDSAT = re.compile(r"L[A-Z]\d\d{6}((?:19|20)\d\d)(\d{3})")
_DAY = re.compile(_YEAR + r"([-_]?)(\d\d)\2(\d\d)(?!\d)")
_DAY_OF_YEAR = re.compile(_YEAR + r"[-_]?(\d{3})(?!\d)")
_ONLY_YEAR = re.compile(_YEAR + r"(?!\d)")


def date_in(name: str) -> datetime.datetime | None:
    """The first date that a file name holds, UTC; a year alone stands for its middle, 1 July."""
    return next(_dates(name), None)


def _dates(name: str) -> Iterator[datetime.datetime]:
    for pattern in (_DAY, _LANDSAT, _DAY_OF_YEAR, _ONLY_YEAR):
        for match in pattern.finditer(name):
            parts = match.groups()
            year = int(parts[0])
            try:
                if pattern is _DAY:
                    day = datetime.datetime(year, int(parts[2]), int(parts[3]))
                elif pattern is _ONLY_YEAR:
                    day = datetime.datetime(year, 7, 1)
                else:
                    day = datetime.datetime.strptime(f"{year} {parts[1]}", "%Y %j")
            except ValueError:  # digits that look like a date and are none
                continue
            if FIRST_YEAR <= year <= LAST_YEAR:
                yield day.replace(tzinfo=datetime.UTC)


def in_order(
    scenes: Sequence[Scene], dates: Sequence[datetime.datetime] | None = None
) -> tuple[list[Scene], list[datetime.datetime]]:
    """The scenes by time, and when they were taken (UTC).

    dates: one for each scene, in the scenes' order; None takes Scene.time, then the name.

    Raises:
        InputError: fewer than two scenes, one without a date, or two of the same date.
    """
    if len(scenes) < 2:
        raise InputError(
            f"{len(scenes)} scene{'' if len(scenes) == 1 else 's'} given; a change needs two or "
            "more, of different dates"
        )
    if dates is not None and len(dates) != len(scenes):
        raise InputError(f"{len(dates)} dates for {len(scenes)} scenes; give one for each")
    found = []
    for number, scene in enumerate(scenes):
        day = scene.time or date_in(scene.name) if dates is None else dates[number]
        if day is None:
            raise InputError(
                f"{scene.name} has no date, neither in the file nor in its name; name it like "
                "name_20140720.tif or give a date for each scene with --dates"
            )
        if day.tzinfo is None:
            day = day.replace(tzinfo=datetime.UTC)
        found.append((day, scene))
    found.sort(key=lambda pair: pair[0])
    for (one, first), (two, second) in pairwise(found):
        if one == two:
            raise InputError(
                f"{first.name} and {second.name} are both of {one:%Y-%m-%d %H:%M}; give one scene "
                "for each date"
            )
    return [scene for _, scene in found], [day for day, _ in found]


def days_since_1970(dates: Sequence[datetime.datetime]) -> list[float]:
    """Days, with fractions, since 1970-01-01 UTC."""
    return [(day - EPOCH).total_seconds() / 86_400 for day in dates]
