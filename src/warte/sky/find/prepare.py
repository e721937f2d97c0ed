"""From raw frames to cells: sky and stars removed, filtered, binned, in units of the noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from warte.sky.find.half import half
from warte.sky.find.register import STILL, affine_matrix, find_stars, median_of, register
from warte.sky.find.settle import Settled, settle
from warte.sky.find.threads import on_threads

SKY_MESH_PX = 16  # the sky's brightness is smooth over so many pixels
TEMPLATE_FRAMES = 15  # frames whose median is the picture of the stars
NOISE_FRAMES = 33  # frames from which the noise of a cell is measured
STILL_PX = 0.05  # stars that move less over a window are taken to stand still
RED_FRAMES = 8  # frames whose mean shows noise that stays
OUTSIDE = np.float32(-1e9)  # marks what a moved frame does not reach
STAR_SIGMA = 4.0  # a cell of the template brighter than this belongs to a star


@dataclass(frozen=True)
class Window:
    """A stretch of a recording, ready for the detectors.

    ``first``: number of its first frame. ``cells`` (T, h, w) float32: point-filtered residuals in
    sigma, on the stars' grid of the reference frame, 0 where a frame does not reach. ``residual``
    (T, H, W) float16: full-resolution residuals, grey levels, on the sensor's grid. ``noise``
    (H, W) float32: sigma of a pixel, grey levels. ``stars`` (h, w) float32: the template in
    sigma; ``red`` (h, w) and ``tail``: see ``red_noise`` and ``heavy_tail``. ``settled``:
    motions of the stars and their errors; ``agreed`` (T,): stars that fit. ``cell``: pixels per
    cell; ``psf_sigma_px``: width of a point.
    """

    first: int
    cells: np.ndarray
    residual: np.ndarray
    noise: np.ndarray
    stars: np.ndarray
    red: np.ndarray
    tail: float
    settled: Settled
    agreed: np.ndarray
    cell: int
    psf_sigma_px: float

    @property
    def motions(self) -> np.ndarray:
        """Motions of the stars, (T, 4)."""
        return self.settled.motions

    @property
    def blur(self) -> float:
        """Width (sigma) of the filter of the cells, in cells."""
        return self.psf_sigma_px / self.cell


def smooth_sky(frame: np.ndarray) -> np.ndarray:
    """Brightness of the sky without stars, (H, W): median of means over a mesh, interpolated."""
    height, width = frame.shape
    size = (max(2, width // SKY_MESH_PX), max(2, height // SKY_MESH_PX))
    mesh = cv2.medianBlur(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), 5)
    return cv2.resize(mesh, (width, height), interpolation=cv2.INTER_LINEAR)


def is_still(motions: np.ndarray, shape: tuple[int, int]) -> bool:
    """Whether no corner of the picture moves more than STILL_PX."""
    reach = np.abs(motions[:, 2:]).max() + np.abs(motions[:, :2] - STILL[:2]).max() * max(shape)
    return bool(reach < STILL_PX)


def warp(image: np.ndarray, matrix: np.ndarray, *, inverse: bool) -> np.ndarray:
    """``image`` moved by ``matrix`` (reference to frame); ``inverse`` brings a frame back."""
    flags = cv2.INTER_CUBIC | (cv2.WARP_INVERSE_MAP if inverse else 0)
    size = image.shape[::-1]
    return cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_CONSTANT)


def star_template(frames: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """What stands still among the stars, (H, W), on the reference's grid."""
    count, height, width = frames.shape
    pick = np.unique(np.linspace(0, count - 1, min(count, TEMPLATE_FRAMES)).round().astype(int))
    if is_still(motions, (height, width)):
        return median_of(frames[pick])
    stack = np.stack(
        [warp(frames[t], affine_matrix(motions[t], (height, width)), inverse=True) for t in pick]
    )
    return median_of(stack)


def steady_light(frames: np.ndarray, motions: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Clipped mean of all ``frames`` less ``template`` on the reference's grid, (H, W).

    The median of a few frames carries a tenth of one frame's variance, which stays where it is and
    adds up along slow paths; the mean of all carries a hundredth.
    """
    shape = template.shape
    still = is_still(motions, shape)
    limit = np.float32(3 * 1.4826 * np.median(np.abs(frames[::8, ::4, ::4])) + 1e-6)
    parts = []

    def some(which: slice) -> None:
        total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for frame, motion in zip(frames[which], motions[which], strict=True):
            if still:
                total += np.clip(frame - template, -limit, limit)
                count += 1
                continue
            there = cv2.warpAffine(
                *(frame, affine_matrix(motion, shape), shape[::-1]),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=float(OUTSIDE),
            )
            seen = there > OUTSIDE / 1000
            there -= template
            np.clip(there, -limit, limit, out=there)
            there *= seen
            total += there
            count += seen
        parts.append((which.start, total, count))

    on_threads(some, [slice(k, k + 16) for k in range(0, len(frames), 16)])
    parts.sort(key=lambda part: part[0])  # sums in one order, whoever was first
    total, count = (np.sum([part[k] for part in parts], axis=0) for k in (1, 2))
    return np.asarray(total / np.maximum(count, 1))


def transparency(frame: np.ndarray, stars: np.ndarray, bright: np.ndarray) -> float:
    """Brightness of a frame's stars relative to the template's, from the pixels ``bright``."""
    if not bright.any():
        return 1.0
    expected = stars[bright]
    ratio = float((frame[bright] * expected).sum() / max((expected**2).sum(), 1e-9))
    return float(np.clip(ratio, 0.0, 3.0))


def remove_stars(frames: np.ndarray, motions: np.ndarray, template: np.ndarray) -> None:
    """Subtract the template, moved and dimmed as in each frame, from ``frames`` in place."""
    shape = template.shape
    spread = 1.4826 * float(np.median(np.abs(template)))
    bright = template > max(8 * spread, np.quantile(template, 0.995))
    still = is_still(motions, shape)

    def one(t: int) -> None:
        moved, mask = template, bright
        if not still:
            matrix = affine_matrix(motions[t], shape)
            moved = warp(template, matrix, inverse=False)
            mask = moved > max(8 * spread, 1e-6)
        frames[t] -= transparency(frames[t], moved, mask) * moved

    on_threads(one, range(len(frames)))


def remove_fixed_pattern(frames: np.ndarray, motions: np.ndarray) -> None:
    """Subtract what stands still on the sensor (hot pixels), in place, where the stars moved.

    Where they stood still, the template holds it already.
    """
    if np.hypot(*np.ptp(motions[:, 2:], axis=0)) < 1.5:
        return
    count = len(frames)
    pick = np.unique(np.linspace(0, count - 1, min(count, TEMPLATE_FRAMES)).round().astype(int))
    frames -= median_of(frames[pick])
    frames -= steady_light(
        frames, np.tile(STILL, (count, 1)), np.zeros(frames.shape[1:], np.float32)
    )


def psf_width(template: np.ndarray, stars: np.ndarray) -> float:
    """Gaussian sigma of the points in ``template`` (H, W), pixels; 1.2 where there are none.

    From each star's weighted second moment; what a Gaussian's would be says how wide it is.
    """
    height, width = template.shape
    moments = []
    for x, y in np.round(stars).astype(int):
        if 7 <= x < width - 7 and 7 <= y < height - 7:
            moment = star_moment(template[y - 6 : y + 7, x - 6 : x + 7].astype(float))
            if 0.05 < moment < 3.9:
                moments.append(moment)
    if len(moments) < 3:
        return 1.2
    sigmas = np.geomspace(0.6, 6.0, 47)
    bells = np.exp(-(np.arange(-6, 7) ** 2) / (2 * sigmas[:, None] ** 2))
    ideal = [star_moment(np.outer(bell, bell)) for bell in bells]
    return float(np.interp(np.median(moments), ideal, sigmas))


def star_moment(patch: np.ndarray) -> float:
    """Mean square distance per axis of the light in ``patch`` (13, 13) from its middle, pixels^2.

    Under a Gaussian weight of 2 pixels, less the light at the rim; 0 where there is none.
    """
    yy, xx = np.mgrid[-6:7, -6:7]
    patch = patch - np.median(patch[np.hypot(yy, xx) > 5])
    core = patch * np.exp(-(xx**2 + yy**2) / (2 * 2.0**2))
    total = float(core.sum())
    if total <= 0:
        return 0.0
    mx, my = (core * xx).sum() / total, (core * yy).sum() / total
    return float((core * ((xx - mx) ** 2 + (yy - my) ** 2)).sum() / total / 2)


def to_cells(
    frame: np.ndarray, cell: int, psf_sigma_px: float, motion: np.ndarray = STILL
) -> np.ndarray:
    """``frame`` (H, W), whose stars moved by ``motion``, filtered for points and read off at the
    middles of the cells of the stars' grid, (H // cell, W // cell); 0 where it does not reach.

    The filter comes before the coarser grid: sums of cell x cell pixels, filtered afterwards, lose
    a tenth of a point's signal to noise.
    """
    height, width = frame.shape
    size = (width // cell, height // cell)
    fine = max(1, cell // 2)  # a wide point needs no fine pixels
    small = frame
    if fine > 1:
        small = frame[: height // fine * fine, : width // fine * fine]
        small = cv2.resize(small, (width // fine, height // fine), interpolation=cv2.INTER_AREA)
    # what the sums and the linear interpolation blur already
    beside = (fine**2 - 1) / 12 + fine**2 / 5
    blur = np.sqrt(max(psf_sigma_px**2 - beside, 0.2)) / fine
    small = cv2.GaussianBlur(small, (0, 0), blur)
    affine = affine_matrix(motion, frame.shape)
    turn, shift = affine[:, :2], affine[:, 2]
    middle = (cell - 1) / 2
    shift = (turn @ [middle, middle] + shift - (fine - 1) / 2) / fine
    matrix = np.column_stack([turn * (cell / fine), shift])
    return cv2.warpAffine(
        small,
        matrix,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )


def quantiles(values: np.ndarray, shares: tuple[float, ...]) -> list[np.ndarray]:
    """Values under which these shares of all lie, along the first axis, without bias.

    Rule 8 of Hyndman and Fan 1996, Am. Stat. 50, 361: of nine values, the one that stands nearest
    to 68.3 % would make a sigma 13 % too small.
    """
    count = len(values)
    places = [float(np.clip(s * (count + 1 / 3) - 2 / 3, 0, count - 1)) for s in shares]
    pairs = [(int(place), min(int(place) + 1, count - 1)) for place in places]
    ordered = np.sort(values, axis=0)
    return [
        ordered[low] + np.float32(place - low) * (ordered[high] - ordered[low])
        for place, (low, high) in zip(places, pairs, strict=True)
    ]


def cell_noise(cells: np.ndarray, stars: np.ndarray | None, floor: float) -> np.ndarray:
    """Sigma of each cell over time, (h, w).

    From the inner 68 % of its values, smoothed over its neighbours, so that a slow mover does not
    hide itself; in the light of a star, which twinkles, from the inner 90 % of its own values.
    """
    pick = np.unique(np.linspace(0, len(cells) - 1, min(len(cells), NOISE_FRAMES)).astype(int))
    size = np.abs(cells[pick])
    height, width = cells.shape[1:]
    calm, wild = np.empty((2, height, width), np.float32)

    def strip(y: int) -> None:
        part, wild_part = quantiles(size[:, y : y + 16], (0.683, 0.9))
        calm[y : y + 16], wild[y : y + 16] = part, wild_part / 1.645

    on_threads(strip, range(0, height, 16))
    sigma = np.maximum(cv2.GaussianBlur(cv2.medianBlur(calm, 5), (0, 0), 2.0), floor)
    if stars is not None:
        near = cv2.dilate((stars > STAR_SIGMA * sigma).astype(np.uint8), np.ones((3, 3), np.uint8))
        sigma = np.where(near > 0, np.maximum(sigma, cv2.GaussianBlur(wild, (0, 0), 0.7)), sigma)
    return sigma


def remove_still(cells: np.ndarray) -> None:
    """Subtract each cell's clipped mean over time, in place: what stood still is gone to the last.

    The median template carries the noise of its few frames, which would add up in a long sum.
    """
    limit = 3.0 * 1.4826 * float(np.median(np.abs(cells[:: max(1, len(cells) // 8)])))
    mean = np.zeros(cells.shape[1:], np.float32)
    for frame in cells:
        mean += np.clip(frame, -limit, limit)
    cells -= mean / len(cells)


def red_noise(cells: np.ndarray, stars: np.ndarray) -> np.ndarray:
    """How much more the means of RED_FRAMES frames scatter than white noise would, (h, w), >= 1.

    As in the time-averaging test of transit photometry (Pont, Zucker and Queloz 2006, MNRAS 373,
    231). ``cells`` (T, h, w) in sigma. Frozen blocks of a codec and the rims of bright stars stay
    for many frames, and a sum along a path must not take them for a mover.
    """
    blocks = len(cells) // RED_FRAMES
    if blocks < 3:
        return np.ones(cells.shape[1:], np.float32)
    means = cells[: blocks * RED_FRAMES].reshape(blocks, RED_FRAMES, *cells.shape[1:]).mean(1)
    means = np.abs(means) * np.float32(np.sqrt(RED_FRAMES))
    rms = np.sqrt(cv2.GaussianBlur((means**2).mean(0), (0, 0), 0.7))
    # the mean of blocks that were themselves made mean-free
    rms *= np.float32(np.sqrt(blocks / (blocks - 1)))
    calm = cv2.GaussianBlur(cv2.medianBlur(rms, 5), (0, 0), 4.0)
    near = cv2.dilate((stars > STAR_SIGMA).astype(np.uint8), np.ones((5, 5), np.uint8))
    return np.maximum(np.where(near > 0, np.maximum(rms, calm), calm), 1.0).astype(np.float32)


def heavy_tail(cells: np.ndarray) -> float:
    """How much farther out the darkest thousandth of the cells lies than Gaussian noise, 1 to 3.

    A codec leaves long tails, and errors of position grow with them. Only the dark side tells:
    movers are bright.
    """
    sample = cells[:: max(1, len(cells) // 16)]
    sample = sample[sample != 0]
    if not sample.size:
        return 1.0
    return float(np.clip(-np.quantile(sample, 0.001) / 3.09, 1.0, 3.0))


def prepare(frames: np.ndarray, first: int, levels: float | None) -> Window:
    """Prepare ``frames`` (T, H, W) float32, which are overwritten; ``levels`` as in Recording."""

    def darken(t: int) -> None:
        frames[t] -= smooth_sky(frames[t])

    on_threads(darken, range(len(frames)))
    motions, agreed, stars = register(frames)
    settled = settle(frames, motions, agreed, stars)
    motions = settled.motions
    template = star_template(frames, motions)
    template += steady_light(frames, motions, template)
    psf = psf_width(template, find_stars(template))
    remove_stars(frames, motions, template)
    remove_fixed_pattern(frames, motions)
    cell = int(np.clip(round(1.6 * psf), 2, 8))
    cells = np.empty(
        (len(frames), template.shape[0] // cell, template.shape[1] // cell), np.float32
    )

    def binned(t: int) -> None:
        cells[t] = to_cells(frames[t], cell, psf, motions[t])

    on_threads(binned, range(len(frames)))
    # rounding to grey levels, after the filter a mean of many pixels
    floor = (levels or 0.0) / np.sqrt(12) / (2 * np.sqrt(np.pi) * psf)
    small_stars = to_cells(template, cell, psf)
    remove_still(cells)
    sigma = cell_noise(cells, small_stars, max(floor, 1e-6))
    cells /= sigma
    small_stars /= sigma
    return Window(
        first=first,
        cells=cells,
        residual=half(frames) if max(frames.max(), -frames.min()) < 6e4 else frames,
        noise=pixel_noise(frames, levels),
        stars=small_stars,
        red=red_noise(cells, small_stars),
        tail=heavy_tail(cells),
        settled=settled,
        agreed=agreed,
        cell=cell,
        psf_sigma_px=psf,
    )


def pixel_noise(frames: np.ndarray, levels: float | None) -> np.ndarray:
    """Sigma of each pixel, (H, W) grey levels, smooth over the picture.

    From the mean size of the residuals, free of the few large ones; stars and trails are smaller
    than the median filter.
    """
    pick = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), 17)).astype(int))
    size = np.abs(frames[pick, ::2, ::2])
    limit = np.float32(4 * 1.4826 * np.median(size))
    calm = 1.2533 * np.minimum(size, max(limit, np.float32(1e-6))).mean(axis=0)
    calm = cv2.GaussianBlur(cv2.medianBlur(calm.astype(np.float32), 5), (0, 0), 4)
    calm = np.maximum(calm, (levels or 0.0) / np.sqrt(12)) + np.float32(1e-6)
    size_px = (frames.shape[2], frames.shape[1])
    return np.asarray(cv2.resize(calm, size_px, interpolation=cv2.INTER_LINEAR), np.float32)
