"""The files of a clustering: a picture of clusters for each scene, and the table of centres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio import windows as rasterio_windows

from warte.core.errors import InputError
from warte.earth.cluster.gather import Columns
from warte.earth.cluster.kmeans import Assign
from warte.earth.cluster.store import ROWS, Float64Array, Frame, Int64Array
from warte.earth.scene import Pixels, Scene, pixel_area_ha
from warte.earth.whole import Output, Report, map_scenes
from warte.earth.write import open_picture

NO_DATA, NOISE = 0, 255  # values of clusters.tif; 1 to 254 are clusters
NAME = "clusters.tif"


@dataclass(frozen=True)
class Label:
    """The clusters of one window of one scene; see `warte.earth.whole.map_scenes`.

    values: (groups,) uint8, what is written for each group.
    """

    columns: Columns
    frame: Frame
    assign: Assign
    values: npt.NDArray[np.uint8]
    name: str

    def __call__(self, scenes: Sequence[Pixels]) -> Mapping[str, npt.NDArray[Any]]:
        (pixels,) = scenes
        vectors, valid = self.columns.of(pixels, pixels.window)
        centred = self.frame.centred(vectors)
        found = np.empty(centred.shape[1], np.uint8)
        for first in range(0, len(found), ROWS):
            some = slice(first, first + ROWS)
            found[some] = self.values[self.assign(centred[:, some])]
        picture = np.full((1, *valid.shape), NO_DATA, np.uint8)
        picture[0, valid] = found
        return {self.name: picture}


def picture_names(scenes: Sequence[Scene]) -> list[str]:
    """clusters.tif, or NAME_clusters.tif for each of several scenes.

    Raises:
        InputError: two scenes have one name.
    """
    if len(scenes) == 1:
        return [NAME]
    names = [scene.name for scene in scenes]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two scenes are called {name}, so their clusters would be one file; rename one"
            )
    return [f"{name}_{NAME}" for name in names]


def write_pictures(
    scenes: Sequence[Scene],
    label: Label,
    names: Sequence[str],
    out: Path,
    pool: Executor | None,
    report: Report | None,
) -> None:
    """Write the clusters of each scene."""
    values = sorted({int(value) for value in label.values})
    labels = {value: "noise" if value == NOISE else f"cluster {value}" for value in values}
    for scene, name in zip(scenes, names, strict=True):
        output = Output(
            name, "uint8", NO_DATA, ("cluster",), colours(values), {NO_DATA: "no data", **labels}
        )
        work = Label(label.columns, label.frame, label.assign, label.values, name)
        map_scenes(
            [scene], work, [output], out, bands=label.columns.bands,
            margin=label.columns.features.margin, pool=pool, report=report,
        )  # fmt: skip


def colours(values: Sequence[int]) -> dict[int, tuple[int, int, int]]:
    """Colours that can be told apart, noise grey: hues a golden angle apart."""
    found = {NO_DATA: (0, 0, 0)}
    for value in values:
        turn = value * 0.61803398875 % 1 * 6
        light = (0.95, 0.7, 0.5)[value % 3]
        rgb = [np.clip(abs((turn + shift) % 6 - 3) - 1, 0, 1) for shift in (0, 4, 2)]
        grey = (128, 128, 128)
        mixed = [round(255 * light * (0.25 + 0.75 * float(part))) for part in rgb]
        found[value] = grey if value == NOISE else (mixed[0], mixed[1], mixed[2])
    return found


def areas_ha(scenes: Sequence[Scene], names: Sequence[str], out: Path) -> Float64Array | None:
    """The area of each value (256,) in the written pictures, hectares; None without a CRS."""
    if any(scene.grid.crs is None for scene in scenes):
        return None
    total = np.zeros(256)
    for scene, name in zip(scenes, names, strict=True):
        rows = pixel_area_ha(scene.grid)
        with open_picture(out / name) as picture:
            high = picture.block_shapes[0][0]
            for first in range(0, len(rows), high):
                number = min(high, len(rows) - first)
                place = rasterio_windows.Window(0, first, picture.width, number)
                for line, area in zip(picture.read(1, window=place), rows[first:], strict=False):
                    total += np.bincount(line, minlength=256) * area
    return total


def write_centres(
    path: Path,
    bands: Sequence[str],
    values: npt.NDArray[np.uint8],
    sums: Int64Array,
    means: Float64Array,
    areas: Float64Array | None,
) -> None:
    """Write centres.csv: cluster, pixels, area_ha where it is known, and the mean of each band.

    values: (groups,) as in the pictures. sums: (groups, ...) whose first column is pixels. means:
    (groups, bands), in the units of the scenes.
    """
    head = ["cluster", "pixels", *(["area_ha"] if areas is not None else []), *bands]
    lines = [",".join(_quoted(name) for name in head)]
    for group in np.argsort(values, kind="stable"):
        value = int(values[group])
        area = [] if areas is None else [f"{areas[value]:.6g}"]
        numbers = [f"{number:.9g}" if np.isfinite(number) else "" for number in means[group]]
        lines.append(",".join([str(value), str(sums[group, 0]), *area, *numbers]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _quoted(name: str) -> str:
    quoted = name.replace('"', '""')
    return f'"{quoted}"' if set(name) & set(',"\n') else name
