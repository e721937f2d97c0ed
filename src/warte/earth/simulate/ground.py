"""The ground: which class lies where, and what happens to it. Any window of it can be asked for.

Places are metres from the upper left corner: x to the east, y to the south.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from warte.earth.simulate.noise import (
    FloatArray,
    HashArray,
    hashed,
    smooth,
    smooth_line,
    uniform,
)
from warte.earth.simulate.settings import (
    KINDS,
    AnomalySettings,
    Event,
    GroundSettings,
    day_of,
)

ClassArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# The classes; their numbers are those of classes.tif, and 0 is no data.
(
    WATER, BROADLEAF, CONIFER, MEADOW, WHEAT, MAIZE, RAPESEED, BARE, WETLAND, ROAD, BUILT, SAND,
    BURNT,
) = range(1, 14)  # fmt: skip
CLASSES = {
    WATER: "water", BROADLEAF: "broadleaf forest", CONIFER: "conifer forest", MEADOW: "meadow",
    WHEAT: "wheat", MAIZE: "maize", RAPESEED: "rapeseed", BARE: "bare soil", WETLAND: "wetland",
    ROAD: "road", BUILT: "built-up", SAND: "sand", BURNT: "burnt",
}  # fmt: skip
COLOURS = {
    WATER: (46, 110, 180), BROADLEAF: (52, 122, 56), CONIFER: (20, 80, 52),
    MEADOW: (150, 200, 100), WHEAT: (225, 200, 110), MAIZE: (180, 160, 40),
    RAPESEED: (245, 230, 60), BARE: (165, 125, 90), WETLAND: (110, 170, 160), ROAD: (90, 90, 90),
    BUILT: (200, 70, 60), SAND: (240, 225, 180), BURNT: (60, 45, 45),
}  # fmt: skip

CELL_M = 1900.0  # distance of the points whose neighbourhoods have their fields in one direction
TOWN_CELL_M = 3000.0
ROAD_M = 10.0  # width of a country road
FOREST = (BROADLEAF, CONIFER)
CROPS = (WHEAT, MAIZE, RAPESEED)


@dataclass(frozen=True)
class Thing:
    """A planted anomaly: a rectangle of a material; place of its centre and sides in metres."""

    x_m: float
    y_m: float
    length_m: float
    width_m: float
    angle_rad: float
    material: str
    contrast: float = 1.0

    def share(self, x: FloatArray, y: FloatArray) -> FloatArray | None:
        """Share of what is seen that is this thing (len(y), len(x)); None where it is not near.

        Pixels are as large as the step of the axes; each is looked at in 5 x 5 places.
        """
        step = x[1] - x[0] if len(x) > 1 else 10.0
        reach = np.hypot(self.length_m, self.width_m) / 2 + step
        columns = np.flatnonzero(np.abs(x - self.x_m) < reach)
        rows = np.flatnonzero(np.abs(y - self.y_m) < reach)
        if not (len(columns) and len(rows)):
            return None
        off = (np.arange(5) - 2) * step / 5
        away_x = (x[columns, None] + off).ravel() - self.x_m
        away_y = (y[rows, None] + off).ravel()[:, None] - self.y_m
        u = np.cos(self.angle_rad) * away_x + np.sin(self.angle_rad) * away_y
        v = np.cos(self.angle_rad) * away_y - np.sin(self.angle_rad) * away_x
        inside = (np.abs(u) <= self.length_m / 2) & (np.abs(v) <= self.width_m / 2)
        parts = inside.reshape(len(rows), 5, len(columns), 5).mean(axis=(1, 3))
        share = np.zeros((len(y), len(x)))
        share[rows[:, None], columns] = self.contrast * parts
        return share


@dataclass(frozen=True)
class Cover:
    """What lies at the places of two axes; all arrays are (len(y), len(x)).

    kind: class. parcel: one number for each field, street block or wood. Numbers of 0 to 1 of the
    parcel: see `chance`. river_m: distance to the river's middle line.
    """

    kind: ClassArray
    parcel: HashArray
    river_m: FloatArray
    coast_m: FloatArray
    roof: BoolArray

    def chance(self, key: int) -> FloatArray:
        """A number of 0 to 1 for the parcel of each place; another one for each key."""
        return uniform(key, self.parcel.view(np.int64))


@dataclass(frozen=True)
class Ground:
    """A ground drawn once; the same wherever and however often one looks.

    levels: of the smooth fields, above which lies forest, and lake.
    """

    settings: GroundSettings
    seed: int
    events: tuple[Event, ...] = ()
    things: tuple[Thing, ...] = ()
    levels: tuple[float, float] = (np.inf, np.inf)

    def cover(self, x: FloatArray, y: FloatArray, day: float | None = None) -> Cover:
        """What lies at the places of two axes (m).

        day: days since 1970-01-01, for what events have done until then; None is before them all.
        """
        cover = _before_events(self, x, y)
        if day is None:
            return cover
        kind, roof = cover.kind.copy(), cover.roof.copy()
        for event in self.events:
            if day_of(event.date) <= day < day_of(event.date) + event.days:
                where = self.reached(event, cover, x, y)
                kind[where] = _becomes(event)
                if event.kind == "building":
                    roof[where] = _halls(x, y)[where]
        return replace(cover, kind=kind, roof=roof)

    def reached(self, event: Event, cover: Cover, x: FloatArray, y: FloatArray) -> BoolArray:
        """Where an event changes the class that was there before all events."""
        number = self.events.index(event)
        if event.kind == "flood":
            height = smooth(self.seed + 501, x, y, 2.0 * event.radius_m, 4)
            width = self.settings.river_m / 2 + event.radius_m * np.clip(0.6 + 0.5 * height, 0, 2)
            return (cover.river_m < width) & ~np.isin(cover.kind, (WATER, BUILT))
        place_x, place_y = event.x, event.y
        assert place_x is not None and place_y is not None, "draw_ground gives every event a place"
        away_x = x - place_x * self.settings.width_m
        away_y = y[:, None] - place_y * self.settings.height_m
        angle = float(uniform(self.seed + 502, number)) * np.pi
        u = (np.cos(angle) * away_x + np.sin(angle) * away_y) / event.radius_m
        v = (np.cos(angle) * away_y - np.sin(angle) * away_x) / event.radius_m
        if event.kind == "burn":
            edge = smooth(self.seed + 503 + number, x, y, event.radius_m, 5)
            inside = np.hypot(u / 1.25, v / 0.8) + 0.3 * edge < 1
            return inside & ~np.isin(cover.kind, (WATER, ROAD, BUILT, SAND))
        # People cut and build along straight lines.
        inside = np.maximum(np.abs(u), np.abs(v)) < 1
        if event.kind == "deforestation":
            strip = np.floor(u * 4).astype(np.int64)
            reach = 0.45 + 0.55 * uniform(self.seed + 504 + number, strip)
            return inside & (np.abs(v) < reach) & np.isin(cover.kind, FOREST)
        return inside & ~np.isin(cover.kind, (WATER, ROAD, BUILT))

    def changes(
        self, x: FloatArray, y: FloatArray, first_day: float, last_day: float
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        """Kinds (1.. as in `settings.KINDS`, 0 none) and days (since 1970, -1 none) of changes.

        Those that begin after the first day and not after the last; the last one where several do.
        """
        cover = self.cover(x, y)
        kind = np.zeros(cover.kind.shape, dtype=np.uint8)
        day = np.full(cover.kind.shape, -1, dtype=np.int32)
        for event in sorted(self.events, key=lambda event: day_of(event.date)):
            start = day_of(event.date)
            if first_day < start <= last_day:
                where = self.reached(event, cover, x, y)
                kind[where] = KINDS.index(event.kind) + 1
                day[where] = int(start)
        return kind, day

    def height(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Height of the ground (m)."""
        if self.settings.relief_m == 0:
            return np.zeros((len(y), len(x)))
        return self.settings.relief_m * smooth(self.seed + 601, x, y, 4000.0, 6, 0.42)


def draw_ground(
    settings: GroundSettings,
    seed: int,
    events: tuple[Event, ...] = (),
    anomalies: AnomalySettings | None = None,
) -> Ground:
    """A ground from a seed."""
    x = np.linspace(0, settings.width_m, 161)
    y = np.linspace(0, settings.height_m, 161)
    levels = (
        _level(_forest_field(seed, x, y), settings.forest),
        _level(_lake_field(seed, x, y), settings.lakes),
    )
    things = _draw_things(settings, anomalies or AnomalySettings(), seed)
    ground = Ground(settings, seed, (), things, levels)
    return replace(ground, events=_placed(ground, events))


def _placed(ground: Ground, events: tuple[Event, ...]) -> tuple[Event, ...]:
    """The events, each at a place; those without one go where they change most, apart."""
    if not events:
        return ()  # looking at all of a vast ground takes long
    settings = ground.settings
    x = np.linspace(0, settings.width_m, 97)
    y = np.linspace(0, settings.height_m, 97)
    cover = ground.cover(x, y)
    free = ~np.isin(cover.kind, (WATER, ROAD, BUILT, SAND))
    placed = []
    for event in events:
        if event.kind == "flood":
            placed.append(replace(event, x=0.5, y=0.5))
            continue
        wanted = np.isin(cover.kind, FOREST) if event.kind == "deforestation" else cover.kind > 0
        sides = settings.height_m, settings.width_m
        reach = [1 + int(2 * 96 * event.radius_m / side) for side in sides]
        # What lies beyond the picture does not count.
        good = uniform_filter((wanted & free).astype(np.float64), reach, mode="constant")
        row, column = np.unravel_index(int(good.argmax()), good.shape)
        at_x = column / 96 if event.x is None else event.x
        at_y = row / 96 if event.y is None else event.y
        placed.append(replace(event, x=at_x, y=at_y))
        away = np.maximum(
            np.abs(x - at_x * settings.width_m), np.abs(y - at_y * settings.height_m)[:, None]
        )
        free &= away > 1.5 * event.radius_m
    return tuple(placed)


def _draw_things(
    settings: GroundSettings, anomalies: AnomalySettings, seed: int
) -> tuple[Thing, ...]:
    rng = np.random.default_rng([seed & 0xFFFFFFFF, 701])
    things = []
    for _ in range(anomalies.count):
        x = rng.uniform(0.03, 0.97) * settings.width_m
        y = rng.uniform(0.03, 0.97) * settings.height_m
        length, width = rng.uniform(*anomalies.size_m, 2)
        material = anomalies.materials[rng.integers(len(anomalies.materials))]
        angle = rng.uniform(0, np.pi)
        things.append(Thing(x, y, length, width, angle, material, anomalies.contrast))
    return tuple(things)


def _level(field: FloatArray, share: float) -> float:
    """The number above which lies this share of a field."""
    if share <= 0:
        return np.inf
    return float(np.quantile(field, 1 - share)) if share < 1 else -np.inf


def _forest_field(seed: int, x: FloatArray, y: FloatArray) -> FloatArray:
    return smooth(seed + 11, x, y, 1600.0, 5, 0.45)


def _lake_field(seed: int, x: FloatArray, y: FloatArray) -> FloatArray:
    return smooth(seed + 12, x, y, 1900.0, 4, 0.35)


def _becomes(event: Event) -> int:
    return {"deforestation": BARE, "flood": WATER, "burn": BURNT, "building": BUILT}[event.kind]


def _before_events(ground: Ground, x: FloatArray, y: FloatArray) -> Cover:
    settings, seed = ground.settings, ground.seed
    fields, parcel, road_m = _fields(settings, seed, x, y)
    kind = fields
    wet = smooth(seed + 13, x, y, 700.0, 4)

    wood = _forest_field(seed, x, y)
    mixed = smooth(seed + 14, x, y, 900.0, 3)
    forest = wood > ground.levels[0]
    kind[forest] = np.where(mixed > 0.15, CONIFER, BROADLEAF)[forest]
    # A wood is one stand of about 150 m after the other.
    stand = hashed(seed + 15, np.floor(y / 150.0)[:, None], np.floor(x / 150.0))
    parcel[forest] = stand[forest]

    kind[road_m < ROAD_M / 2] = ROAD
    town, block, street, roof = _towns(settings, seed, x, y)
    kind[town] = np.where(street, ROAD, BUILT)[town]
    parcel[town] = block[town]

    lake = _lake_field(seed, x, y)
    river_m = _river(settings, seed, x, y)
    near = 60.0 + 340.0 * settings.wetland
    if settings.wetland > 0:
        shore = (lake > ground.levels[1] - 0.35 * settings.wetland) & (wet > 0.2)
        kind[shore | (river_m < settings.river_m / 2 + near * np.clip(wet, 0, 1.2))] = WETLAND
    kind[(lake > ground.levels[1]) | (river_m < settings.river_m / 2)] = WATER
    coast_m = _coast(settings, seed, x, y)
    if settings.sea > 0:
        land = (coast_m > 0) & (kind != WATER)
        kind[land & (coast_m < 500.0 * np.clip(wet + 0.4, 0, 2))] = WETLAND
        kind[land & (coast_m < 45.0 + 30.0 * wet)] = SAND
        kind[coast_m <= 0] = WATER
    return Cover(kind, parcel, river_m, coast_m, roof)


def _river(settings: GroundSettings, seed: int, x: FloatArray, y: FloatArray) -> FloatArray:
    """Distance to the middle line of the river (m); infinite without one."""
    if settings.river_m == 0:
        return np.full((len(y), len(x)), np.inf)
    angle = (0.15 + 0.7 * float(uniform(seed + 21, 0))) * np.pi / 2
    middle_x = (0.35 + 0.3 * float(uniform(seed + 21, 1))) * settings.width_m
    middle_y = (0.35 + 0.3 * float(uniform(seed + 21, 2))) * settings.height_m
    along = np.cos(angle) * (x - middle_x) + np.sin(angle) * (y[:, None] - middle_y)
    across = np.cos(angle) * (y[:, None] - middle_y) - np.sin(angle) * (x - middle_x)
    # One table along the river, since the line bends slowly.
    reach = np.hypot(settings.width_m, settings.height_m) + 4000.0
    table_u = np.arange(-reach, reach, 10.0)
    bend = 280.0 * smooth_line(seed + 22, table_u, 1700.0, 3)
    slope = np.gradient(bend, 10.0)
    line = np.interp(along, table_u, bend)
    return np.abs(across - line) / np.sqrt(1 + np.interp(along, table_u, slope) ** 2)


def _coast(settings: GroundSettings, seed: int, x: FloatArray, y: FloatArray) -> FloatArray:
    """About the distance from the coast (m), inland positive; infinite without a sea."""
    if settings.sea == 0:
        return np.full((len(y), len(x)), np.inf)
    return (
        x
        - settings.sea * settings.width_m
        + 0.06 * settings.width_m * smooth(seed + 23, x, y, settings.width_m / 2.5, 6)
    )


def _fields(
    settings: GroundSettings, seed: int, x: FloatArray, y: FloatArray
) -> tuple[ClassArray, HashArray, FloatArray]:
    """Class of the field, number of the field, and distance from the next country road (m)."""
    nearest, road_m = _cells(seed + 31, x, y)
    # Each neighbourhood has one direction and one width of its fields.
    angle = uniform(seed + 32, nearest) * np.pi
    low, high = settings.field_m
    width = low + (high - low) * uniform(seed + 33, nearest)
    length = width * (1.4 + 1.6 * uniform(seed + 34, nearest))
    cosine, sine = np.cos(angle), np.sin(angle)
    u = cosine * x + sine * y[:, None]
    v = cosine * y[:, None] - sine * x
    strip = np.floor(u / width).astype(np.int64)
    place = v / length + uniform(seed + 35, nearest, strip)
    parcel = hashed(seed + 36, nearest, strip, np.floor(place).astype(np.int64))
    crop = uniform(seed + 37, parcel.view(np.int64))
    meadow, bare = settings.meadow, settings.bare
    rest = (1 - meadow - bare) / 3
    edges = np.cumsum([meadow, bare, rest, rest])
    kinds = np.array([MEADOW, BARE, WHEAT, MAIZE, RAPESEED], dtype=np.uint8)
    kind = kinds[np.searchsorted(edges, crop, side="right")]
    # A strip of grass between fields.
    side = (u / width - strip) * width
    end = (place - np.floor(place)) * length
    kind[(side < 4.0) | (end < 4.0)] = MEADOW
    return kind, parcel, road_m


def _cells(seed: int, x: FloatArray, y: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Number of the nearest of scattered points, and distance to the border of its cell (m)."""
    columns = np.arange(np.floor(x[0] / CELL_M) - 2, np.floor(x[-1] / CELL_M) + 3, dtype=np.int64)
    rows = np.arange(np.floor(y[0] / CELL_M) - 2, np.floor(y[-1] / CELL_M) + 3, dtype=np.int64)
    place_x = (columns + 0.15 + 0.7 * uniform(seed, 0, rows[:, None], columns)) * CELL_M
    place_y = (rows[:, None] + 0.15 + 0.7 * uniform(seed, 1, rows[:, None], columns)) * CELL_M
    number = hashed(seed, 2, rows[:, None], columns).view(np.int64).ravel()
    points = np.stack([place_x.ravel(), place_y.ravel()], axis=1)
    shape = (len(y), len(x))
    first, second = np.full(shape, np.inf), np.full(shape, np.inf)
    one, two = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for index, (point_x, point_y) in enumerate(points):
        distance = (x - point_x) ** 2 + ((y - point_y) ** 2)[:, None]
        closer = distance < first
        middle = ~closer & (distance < second)
        two = np.where(closer, one, np.where(middle, index, two))
        second = np.where(closer, first, np.where(middle, distance, second))
        one = np.where(closer, index, one)
        first = np.where(closer, distance, first)
    apart = np.hypot(*(points[one] - points[two]).transpose(2, 0, 1))
    return number[one], (second - first) / (2 * np.maximum(apart, 1.0))


def _halls(x: FloatArray, y: FloatArray) -> BoolArray:
    """Roofs of a new quarter: halls of 45 m x 35 m with ways between."""
    return (np.mod(x, 60.0) < 45.0) & (np.mod(y, 50.0) < 35.0)[:, None]


def _towns(
    settings: GroundSettings, seed: int, x: FloatArray, y: FloatArray
) -> tuple[BoolArray, HashArray, BoolArray, BoolArray]:
    """Where a town is, the number of the lot, where its streets are, and where its roofs."""
    shape = (len(y), len(x))
    inside, street, roof = (np.zeros(shape, dtype=bool) for _ in range(3))
    lot, best = np.zeros(shape, dtype=np.uint64), np.zeros(shape)
    ragged = smooth(seed + 41, x, y, 450.0, 3)
    columns = range(int(x[0] // TOWN_CELL_M) - 1, int(x[-1] // TOWN_CELL_M) + 2)
    rows = range(int(y[0] // TOWN_CELL_M) - 1, int(y[-1] // TOWN_CELL_M) + 2)
    for row, column in product(rows, columns):
        chance, at_x, at_y, size, turn = (
            float(uniform(seed + 42, key, row, column)) for key in range(5)
        )
        if chance >= settings.towns:
            continue
        away_x = x - (column + at_x) * TOWN_CELL_M
        away_y = y[:, None] - (row + at_y) * TOWN_CELL_M
        radius = settings.town_radius_m * (0.5 + size)
        density = 1 - np.hypot(away_x, away_y) / radius + 0.22 * ragged
        here = density > best
        if not here.any():
            continue
        u = np.cos(turn * np.pi) * away_x + np.sin(turn * np.pi) * away_y
        v = np.cos(turn * np.pi) * away_y - np.sin(turn * np.pi) * away_x
        numbers, roofs = _lots(hashed(seed + 43, row, column), u, v, np.maximum(density, 0))
        best = np.where(here, density, best)
        inside |= here
        street = np.where(here, (np.mod(u, 110.0) < 9.0) | (np.mod(v, 80.0) < 9.0), street)
        lot, roof = np.where(here, numbers, lot), np.where(here, roofs, roof)
    return inside, lot, street, roof


def _lots(
    seed: HashArray, u: FloatArray, v: FloatArray, density: FloatArray
) -> tuple[HashArray, BoolArray]:
    """Number of the lot, and where its roof is; lots near the middle are built up more densely."""
    column, row = np.floor(u / 25.0), np.floor(v / 27.0)
    number = hashed(int(seed), row.astype(np.int64), column.astype(np.int64))
    key = number.view(np.int64)
    half_u = 0.2 + 0.2 * uniform(44, key) + 0.15 * density
    half_v = 0.2 + 0.2 * uniform(45, key) + 0.15 * density
    inside = (np.abs(u / 25.0 - column - 0.5) < half_u) & (np.abs(v / 27.0 - row - 0.5) < half_v)
    return number, inside & (uniform(46, key) < 0.75 + density)
