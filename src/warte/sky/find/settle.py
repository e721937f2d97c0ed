"""Settle the stars' motions to a few thousandths of a pixel, and say how well they are known.

`register` follows the stars frame by frame from the places they had in one frame. Here all frames
together say where each star stands, each star counts by its light, and what is left of the
motions' scatter tells noise from a camera that shakes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from warte.sky.find.register import apply_motion

REACH_PX = 5  # half the side of the patch around a star
SIGMA_PX = 1.3  # width of the weight; a wrong one slows the rounds, it does not shift a star
ROUNDS = 4
FLOOR_PX = 0.03  # no single star's place is trusted better: pixels, neighbours, twinkling
ODD_SIGMA = 6.0  # a star off by so many sigma counts a quarter
FAR_PX = 2.0  # a star farther off than this is another one
DEGREES = (1, 2, 3)  # of the polynomials in time that a steady mount may follow
ROUGH_PX = 0.2  # a camera that leaves such a curve by more than this goes its own way
UNKNOWN_PX = 0.012  # error of the motion where too few stars say it


@dataclass(frozen=True)
class Settled:
    """Motions (T, 4) as in `register`, their errors (T,) in pixels per axis at the stars' middle,
    and ``spread_px``, the stars' root mean square distance from there: the error of a place
    grows with its own."""

    motions: np.ndarray
    error_px: np.ndarray
    spread_px: float

    def error_at(self, t: np.ndarray, off: np.ndarray) -> np.ndarray:
        """Error per axis (n,), pixels, in frames ``t`` (n,) at ``off`` (n, 2) from the middle."""
        distance = np.hypot(*np.asarray(off).T)
        return np.asarray(self.error_px[t] * np.hypot(1.0, distance / self.spread_px))


def as_followed(motions: np.ndarray, shape: tuple[int, int]) -> Settled:
    """Motions (T, 4) that no more is known of, in pictures of ``shape`` (H, W)."""
    return Settled(motions, np.full(len(motions), UNKNOWN_PX), float(np.hypot(*shape)) / 4)


def settle(
    frames: np.ndarray, motions: np.ndarray, agreed: np.ndarray, stars: np.ndarray
) -> Settled:
    """Fit ``motions`` (T, 4) anew to ``stars`` (n, 2: x, y of the reference, pixels) in ``frames``
    (T, H, W), whose sky is near zero. With fewer than four stars they are calmed alone, as far as
    two stars ``agreed`` (T,)."""
    count, height, width = frames.shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    if len(stars) < 4:
        followed = as_followed(motions, (height, width))
        if not len(stars):
            return followed
        calmed, error = calm(motions, agreed >= 2, np.zeros((0, 2)))
        return replace(followed, motions=calmed, error_px=error)
    place = stars - centre
    patches, corner, seen = _patches(frames, apply_motion(motions[:, None], place) + centre)
    noise = 1.4826 * np.median(np.abs(frames[:, ::4, ::4]), axis=(1, 2)).astype(float) + 1e-6
    motion, known = motions.copy(), np.zeros(count, bool)
    halves = np.arange(len(stars)) % 4 % 3 == 0  # the brightest first: by turns, fairly
    apart = np.zeros((count, 2))
    for _ in range(ROUNDS):
        expected = apply_motion(motion[:, None], place)
        off, variance = _offsets(patches, expected + centre - corner, noise)
        far = np.hypot(off[..., 0], off[..., 1]) > FAR_PX
        weight = np.where(seen & ~far, 1 / (variance + FLOOR_PX**2), 0.0)
        weight /= (1 + (off**2).sum(-1) * weight / ODD_SIGMA**2) ** 2
        fitted, known = _similarities(place, expected + off, weight)
        motion = np.where(known[:, None], fitted, motion)
        left = expected + off - apply_motion(motion[:, None], place)
        apart, split = _apart(place, expected + off, weight, halves)
        gain = np.where(known[:, None], weight, 0.0)
        place = place + (gain[..., None] * left).sum(0) / np.maximum(gain.sum(0), 1e-9)[:, None]
    if known.sum() < 2:
        return as_followed(motions, (height, width))
    motion, error = calm(motion, known, apart[split])
    spread = float(np.sqrt(((place - place.mean(0)) ** 2).sum(1).mean()))
    return Settled(motion, error, max(spread, 1.0))


def _patches(frames: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squares around ``expected`` (T, n, 2): (T, n, s, s), their corners, and which are whole."""
    height, width = frames.shape[1:]
    corner = np.round(expected).astype(int) - REACH_PX
    size = 2 * REACH_PX + 1
    seen = (corner >= 0).all(-1)
    seen &= (corner[..., 0] + size <= width) & (corner[..., 1] + size <= height)
    corner = np.clip(corner, 0, [max(0, width - size), max(0, height - size)])
    span = np.arange(size)
    t = np.arange(len(frames))[:, None, None, None]
    y = corner[..., 1, None, None] + span[:, None]
    x = corner[..., 0, None, None] + span
    return frames[t, np.minimum(y, height - 1), np.minimum(x, width - 1)], corner, seen


def _offsets(
    patches: np.ndarray, expected: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far each star stands from ``expected`` (T, n, 2) in its patch, and the variance per axis.

    One Newton step of the least-squares fit of a Gaussian: the projection on its slope over the
    one on itself. The rounds bring the offsets to zero, where a wrong width does no harm.
    """
    span = np.arange(patches.shape[-1])
    dx, dy = (span - expected[..., k, None] for k in (0, 1))  # (T, n, s)
    gx, gy = (np.exp(-(d**2) / (2 * SIGMA_PX**2)) for d in (dx, dy))
    rows = np.einsum("tnij,tnj->tni", patches, gx)
    slope_rows = np.einsum("tnij,tnj->tni", patches, gx * dx)
    light = (rows * gy).sum(-1)
    norm = (gx**2).sum(-1) * (gy**2).sum(-1)
    lost = norm < 1.0  # a star whose place has left its patch: a whole weight has 5
    norm = np.where(lost, 1.0, norm)
    amplitude = np.where(lost, 0.0, light / norm)
    slopes = np.stack([(slope_rows * gy).sum(-1), (rows * gy * dy).sum(-1)], -1)
    squares = np.stack(
        [
            ((gx * dx) ** 2).sum(-1) * (gy**2).sum(-1),
            (gx**2).sum(-1) * ((gy * dy) ** 2).sum(-1),
        ],
        -1,
    )
    # a faint star's light in one frame is mostly noise: its own mean, dimmed as the frame is
    mean = np.maximum(np.median(amplitude, axis=0), 0.0)
    clear = np.clip((amplitude * mean).sum(1) / max(float((mean**2).sum()), 1e-12), 0.0, 3.0)
    steady = clear[:, None] * mean
    shown = (steady > noise[:, None] / np.sqrt(norm)) & ~lost
    steady = np.where(shown, steady, 1.0)
    squares = np.where(shown[..., None], squares, 1.0)
    off = slopes / squares * SIGMA_PX**2 / steady[..., None]
    variance = (noise[:, None] * SIGMA_PX**2 / steady) ** 2 / squares.mean(-1)
    return np.where(shown[..., None], off, 0.0), np.where(shown, variance, np.inf)


def _similarities(
    place: np.ndarray, found: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted similarities (T, 4) from ``place`` (n, 2) to ``found`` (T, n, 2), and which hold.

    Umeyama 1991, IEEE PAMI 13, 376, in two dimensions. Four stars at least.
    """
    known = (weight > 0).sum(1) >= 4
    w = (weight / np.maximum(weight.sum(1, keepdims=True), 1e-12))[..., None]
    pm, qm = (w * place).sum(1), (w * found).sum(1)
    p, q = place - pm[:, None], found - qm[:, None]
    norm = np.maximum((w * p**2).sum((1, 2)), 1e-9)
    a = (w * p * q).sum((1, 2)) / norm
    b = (w[..., 0] * (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0])).sum(1) / norm
    shift_x = qm[:, 0] - a * pm[:, 0] + b * pm[:, 1]
    shift_y = qm[:, 1] - b * pm[:, 0] - a * pm[:, 1]
    return np.stack([a, b, shift_x, shift_y], 1), known


def _apart(
    place: np.ndarray, found: np.ndarray, weight: np.ndarray, half: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Differences (T, 2) of the shifts that two halves of the stars tell, and where both do.

    Whatever the camera did, both saw; what differs is noise, whatever made it.
    """
    one, known = _similarities(place, found, weight * half)
    two, known_too = _similarities(place, found, weight * ~half)
    return (one - two)[:, 2:], known & known_too


def calm(
    motions: np.ndarray, known: np.ndarray, apart: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take noise out of ``motions`` (T, 4), where ``known``; return them and their errors (T,).

    ``apart`` (n, 2): differences of the shifts by halves of the stars, whose scatter is twice the
    noise. A mount follows a smooth curve, a hand does not: the deviations from the best polynomial
    are kept as far as they exceed the noise (a Wiener filter), all of them beyond ROUGH_PX. Where
    no halves tell, they are taken for noise.
    """
    count = len(motions)
    told = len(apart) >= 8
    noise = float(np.mean(np.minimum(np.abs(apart), 1.0) ** 2)) / 4 if told else np.inf
    error = np.where(known, min(np.sqrt(noise), 0.5), 1.0)
    if known.sum() < 8:
        return motions, error
    t = np.linspace(-1, 1, count)
    best = None
    for degree in DEGREES if known.sum() >= 16 else DEGREES[:1]:
        design = np.polynomial.legendre.legvander(t, degree)
        normal = np.linalg.inv(design[known].T @ design[known])
        curve = design @ (normal @ (design[known].T @ motions[known]))
        variance = float(((motions - curve)[known, 2:] ** 2).sum()) / (known.sum() - degree - 1) / 2
        bic = 2 * known.sum() * np.log(max(variance, 1e-12)) + 2 * degree * np.log(known.sum())
        if best is None or bic < best[0]:
            leverage = np.einsum("ti,ij,tj->t", design, normal, design)
            best = (bic, curve, variance, leverage * variance)
    assert best is not None
    _, curve, variance, curve_variance = best
    if np.quantile(np.abs(motions - curve)[known, 2:], 0.9) > ROUGH_PX:
        return motions, error
    excess = variance - noise
    # chance makes an excess, too
    gain = excess / variance if excess > 3 * noise / np.sqrt(known.sum()) else 0.0
    calmed = curve + gain * np.where(known[:, None], motions - curve, 0.0)
    own = np.where(known, gain * noise, excess) if gain else 0.0
    return calmed, np.sqrt(own + curve_variance)
