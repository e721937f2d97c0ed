"""Register frames on the stars: the motion that all of them share.

A motion is a similarity, four numbers ``(a, b, tx, ty)``: a point ``(x, y)`` of the reference
lies at ``(a x - b y + tx, b x + a y + ty)`` in the frame; ``a - 1`` is the growth, ``b`` the
rotation in radians (for small angles). Coordinates are pixels about the picture's centre, so that
the numbers of a fit do not mix.
"""

from __future__ import annotations

import cv2
import numpy as np

from warte.sky.find.threads import on_threads

STILL = np.array([1.0, 0.0, 0.0, 0.0])
SEARCH_PX = 4  # a star is looked for so far from where it is expected
STARS_MAX = 80
FEW_STARS = 3  # fewer than these may be noise
RUNAWAY_PX = 15.0  # and then so large a motion is not believed
HOT_SHARE = 0.08  # of a star's light in its brightest pixel, each of the four beside it has more


def median_of(frames: np.ndarray) -> np.ndarray:
    """Median over the first axis, in strips that stay in the cache."""
    out = np.empty(frames.shape[1:], frames.dtype)
    low, high = (len(frames) - 1) // 2, len(frames) // 2

    def strip(y: int) -> None:
        part = np.sort(frames[:, y : y + 16], axis=0)  # faster than to part them
        out[y : y + 16] = 0.5 * (part[low] + part[high])

    on_threads(strip, range(0, frames.shape[1], 16))
    return out


def find_stars(image: np.ndarray, *, limit: int = STARS_MAX, threshold: float = 6.0) -> np.ndarray:
    """Positions (n, 2: x, y in pixels) of the brightest points of ``image`` (H, W), isolated."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.2)
    smooth = smooth - cv2.GaussianBlur(smooth, (0, 0), 6)
    spread = 1.4826 * np.median(np.abs(smooth - np.median(smooth)))
    highest = cv2.dilate(smooth, np.ones((9, 9), np.uint8))
    border = SEARCH_PX + 4
    peaks = (smooth >= highest) & (smooth > threshold * max(float(spread), 1e-6))
    peaks[:border] = peaks[-border:] = False
    peaks[:, :border] = peaks[:, -border:] = False
    y, x = np.nonzero(peaks & ~hot(image))
    order = np.argsort(-smooth[y, x])[:limit]
    start = np.stack([x[order], y[order]], 1).astype(float)
    found, good = centroids(image, start)
    return found[good]


def hot(image: np.ndarray) -> np.ndarray:
    """Pixels that stand alone, (H, W) bool: a star lights its neighbours too."""
    local = image - cv2.medianBlur(image, 5)
    beside = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4
    return np.asarray(cv2.filter2D(local, -1, beside) < HOT_SHARE * local)


def centroids(image: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of light near ``expected`` (n, 2) and whether there is one, (n,) bool.

    The brightest smoothed pixel within SEARCH_PX, refined by a parabola through its neighbours.
    """
    height, width = image.shape
    n = len(expected)
    if n == 0:
        return expected, np.zeros(0, bool)
    reach = SEARCH_PX + 2
    corner = np.round(expected).astype(int) - reach
    inside = (corner >= 0).all(1) & (corner[:, 0] + 2 * reach < width)
    inside &= corner[:, 1] + 2 * reach < height
    corner = np.clip(corner, 0, [max(0, width - 2 * reach - 1), max(0, height - 2 * reach - 1)])
    span = np.arange(2 * reach + 1)
    patch = image[corner[:, 1, None, None] + span[:, None], corner[:, 0, None, None] + span]
    # three-by-three sums, written out: a patch is too small for a library call
    rows = patch[:, :-2] + 2 * patch[:, 1:-1] + patch[:, 2:]
    smooth = rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    side = smooth.shape[1]
    flat = smooth[:, 1:-1, 1:-1].reshape(n, -1).argmax(1)
    py, px = flat // (side - 2) + 1, flat % (side - 2) + 1
    k = np.arange(n)
    centre = smooth[k, py, px]
    offsets = []
    for low, high in (
        (smooth[k, py, px - 1], smooth[k, py, px + 1]),
        (smooth[k, py - 1, px], smooth[k, py + 1, px]),
    ):
        curve = 2 * centre - low - high
        offsets.append(np.where(curve > 0, 0.5 * (high - low) / np.maximum(curve, 1e-9), 0.0))
    found = corner + 1 + np.stack([px + offsets[0], py + offsets[1]], 1)
    floor = np.median(smooth.reshape(n, -1), axis=1)
    contrast = centre - floor
    return found, inside & (contrast > 0)


def fit_motion(reference: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, int]:
    """Similarity that takes ``reference`` to ``found`` (both (n, 2), centred), robustly.

    Returns the motion and the number of stars that agree within half a pixel. With fewer than
    four stars only the shift is fitted, with none the motion is STILL.
    """
    n = len(reference)
    if n == 0:
        return STILL.copy(), 0
    shift = np.median(found - reference, axis=0)
    motion = np.array([1.0, 0.0, *shift])
    weight = np.ones(n)
    for scale in (2.0, 1.0, 0.5, 0.3):
        off = np.hypot(*(found - apply_motion(motion, reference)).T)
        weight = 1 / (1 + (off / scale) ** 2) ** 2
        agree = int((off < max(scale, 0.5)).sum())
        if agree < 4:
            shift = np.average(found - reference, axis=0, weights=weight + 1e-9)
            motion = np.array([1.0, 0.0, *shift])
            continue
        motion = weighted_similarity(reference, found, weight)
    off = np.hypot(*(found - apply_motion(motion, reference)).T)
    return motion, int((off < 0.5).sum())


def weighted_similarity(p: np.ndarray, q: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Least squares similarity from ``p`` to ``q`` (n, 2) (Umeyama 1991, two dimensions)."""
    w = weight / weight.sum()
    pm, qm = w @ p, w @ q
    pc, qc = p - pm, q - qm
    norm = max(float(w @ (pc**2).sum(1)), 1e-9)
    a = float(w @ (pc * qc).sum(1)) / norm
    b = float(w @ (pc[:, 0] * qc[:, 1] - pc[:, 1] * qc[:, 0])) / norm
    return np.array([a, b, qm[0] - a * pm[0] + b * pm[1], qm[1] - b * pm[0] - a * pm[1]])


def apply_motion(motion: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Move centred points (..., 2) by ``motion`` (..., 4)."""
    a, b, tx, ty = np.moveaxis(np.asarray(motion, float), -1, 0)
    x, y = points[..., 0], points[..., 1]
    return np.stack([a * x - b * y + tx, b * x + a * y + ty], -1)


def affine_matrix(motion: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """2 x 3 matrix for cv2 (reference pixel to frame pixel)."""
    a, b, tx, ty = motion
    cx, cy = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    return np.array([[a, -b, tx + cx - a * cx + b * cy], [b, a, ty + cy - b * cx - a * cy]])


def jump(previous: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Shift (dx, dy) between two frames by phase correlation; for jolts that lose the stars."""
    small = [np.clip(f - cv2.GaussianBlur(f, (0, 0), 8), 0, None) for f in (previous, current)]
    window = cv2.createHanningWindow(small[0].shape[::-1], cv2.CV_32F)
    shift, response = cv2.phaseCorrelate(small[0], small[1], window)
    return np.array(shift) if response > 0.05 else np.zeros(2)


def register(
    frames: np.ndarray, reference: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Motions of the stars in ``frames`` (T, H, W) against one of them, (T, 4).

    Also returns the number of stars that agree in each frame, (T,): under 2 the motion is a guess
    (the one of the frame before); and the stars' places in the reference, (n, 2) pixels. Frames
    are followed one by one from the reference outwards.
    """
    count, height, width = frames.shape
    reference = count // 2 if reference is None else reference
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    near = slice(max(0, reference - 2), reference + 3)
    stars = find_stars(median_of(frames[near]) if count > 4 else frames[reference])
    stars, good = centroids(frames[reference], stars)
    stars = stars[good] - centre
    motions = np.tile(STILL, (count, 1))
    agreed = np.zeros(count, int)
    agreed[reference] = len(stars)

    def follow(step: int) -> None:
        last, velocity = STILL.copy(), np.zeros(4)
        for t in range(reference + step, count if step > 0 else -1, step):
            guess = last + velocity
            motion, agree = _match(frames[t], stars, centre, guess)
            if agree < max(3, len(stars) // 3) and len(stars) >= 3:
                moved = last.copy()
                moved[2:] += jump(frames[t - step], frames[t])
                again, agree_again = _match(frames[t], stars, centre, moved)
                if agree_again > agree:
                    motion, agree = again, agree_again
            if agree < min(2, len(stars)) or len(stars) == 0:
                motion = last.copy()
            velocity = 0.5 * (motion - last)
            motions[t], agreed[t], last = motion, agree, motion

    on_threads(follow, (1, -1))
    if np.median(agreed) < FEW_STARS and np.abs(motions[:, 2:]).max() > RUNAWAY_PX:
        motions[:] = STILL  # a point or two of noise were followed, not the sky
        stars = stars[:0]
    return motions, agreed, stars + centre


def _match(
    frame: np.ndarray, stars: np.ndarray, centre: np.ndarray, guess: np.ndarray
) -> tuple[np.ndarray, int]:
    found, good = centroids(frame, apply_motion(guess, stars) + centre)
    return fit_motion(stars[good], found[good] - centre)
