"""Maximum-likelihood paths at full resolution, with uncertainties.

For a faint point of known shape the log-likelihood of a path is the sum of the matched-filter
image along it. With ``S_t(p)`` that image in sigma (unit noise) and ``f_t`` the mover's SNR,

    ln L = sum_t f_t S_t(p_t) - f_t^2 / 2,

whose curvature is ``f_t^2 / (2 sigma^2)`` per axis for a Gaussian point of width ``sigma``: the
error of one position is ``sqrt(2) sigma / SNR`` (King 1983, PASP 95, 163). Paths are polynomials
or splines in time, ``p_t = B_t c``; ``c`` is found by Fisher scoring, its covariance is the
inverse of the Fisher matrix, and the Bayesian information criterion chooses the basis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from math import sqrt

import cv2
import numpy as np
from scipy.interpolate import BSpline
from scipy.special import ndtr

from warte.sky.find.half import half, single
from warte.sky.find.prepare import Window
from warte.sky.find.register import apply_motion
from warte.sky.find.threads import on_threads

TRAIL_FROM_PX = 1.0  # motion in a frame that trails and points differ by (pixels)
TRAIL_STEP_PX = 1.0  # a trail is sampled so often
SLOPE_PX = 0.5  # slopes are differences over twice this
ROUNDS = 12  # of Fisher scoring
GLINT_FRAMES = 40  # one frame in so many may hold light that is not the mover's
STEP_MAX_PX = 1.0  # longest step of one round
NOISE_FRAMES = 24  # frames from which the noise of a place is measured
NOISE_PX = 4.0  # over which it is smoothed
KNOTS = np.array([-3.09, -2.75, -2.33, -1.88, -1.28, -0.5, 0.0, 0.5, 1.28, 1.88, 2.33, 2.75, 3.09])
WHITE = 1.15  # values so rare that reach no farther than this over a Gaussian's are white noise
MODEL_PX = 0.005  # what sampling and the pixels leave, added to every error


@dataclass(frozen=True)
class Fit:
    """A fitted path. Arrays of length n, one entry per frame of the window it is seen in.

    ``frame`` (of the recording), ``x``, ``y``, ``x_err``, ``y_err`` (pixels, sensor), ``star_x``,
    ``star_y`` (pixels, stars' grid), ``snr`` (matched filter in that frame), ``flux``,
    ``flux_err`` (grey levels). ``score``: sigma of the whole path; ``trail``: as it was given.
    """

    frame: np.ndarray
    x: np.ndarray
    y: np.ndarray
    x_err: np.ndarray
    y_err: np.ndarray
    star_x: np.ndarray
    star_y: np.ndarray
    snr: np.ndarray
    flux: np.ndarray
    flux_err: np.ndarray
    score: float
    trail: float


class MatchedFrames:
    """Matched-filter images of a window, made when a frame is first asked for."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.sigma = window.psf_sigma_px  # of the pixels: the pixel's own width is in it
        count, self.height, self.width = window.residual.shape
        self.images = np.empty(window.residual.shape, np.float16)  # pages come as they are filled
        self.ready = np.zeros(count, bool)
        # sum of squares of a unit Gaussian: the filtered noise is sigma_pixel times its root
        self.norm = 1 / (2 * sqrt(np.pi) * self.sigma)

    def prepare(self, frames: np.ndarray) -> None:
        """Fill the images of ``frames`` (of the window): sigma, at most 6e4."""
        if self.ready[frames].all():
            return
        scale = 1 / (self.window.noise * self.norm)

        def one(t: int) -> None:
            frame = single(self.window.residual[t])
            smooth = cv2.GaussianBlur(frame, (0, 0), self.sigma, borderType=cv2.BORDER_CONSTANT)
            self.images[t] = half(np.clip(np.multiply(smooth, scale), -6e4, 6e4))
            self.ready[t] = True

        on_threads(one, np.unique(frames[~self.ready[frames]]).tolist())

    def _some_frames(self) -> np.ndarray:
        """Frames from which the noise is measured, prepared."""
        count = len(self.images)
        pick = np.unique(np.linspace(0, count - 1, min(count, NOISE_FRAMES)).round().astype(int))
        self.prepare(pick)
        return pick

    @cached_property
    def local(self) -> np.ndarray:
        """Noise of the images over the picture, (H, W) float32 in sigma of ``window.noise``.

        From the dark side alone, since movers are bright; never below the median, as a frozen part
        of the picture may be rewritten at any time.
        """
        pick = self._some_frames()
        dark = np.zeros((self.height, self.width), np.float32)
        for t in pick:
            dark += np.square(np.clip(single(self.images[t]), -8.0, 0.0))
        # half of the values are dark, and they hold half of the squares
        rms = np.sqrt(cv2.GaussianBlur(2 * dark / len(pick), (0, 0), NOISE_PX))
        return np.asarray(np.maximum(rms, max(float(np.median(rms)), 1e-3)), np.float32)

    @cached_property
    def knots(self) -> tuple[np.ndarray, np.ndarray]:
        """Values over the `local` noise, and the sigmas at which a Gaussian is as rare."""
        pick = self._some_frames()
        values = np.stack([self.images[t, ::2, ::2] / self.local[::2, ::2] for t in pick])
        seen = np.quantile(values[values != 0] if (values != 0).any() else [0.0], ndtr(KNOTS))
        return np.maximum.accumulate(seen + 1e-6 * KNOTS), KNOTS

    @property
    def is_white(self) -> bool:
        """Whether rare values reach no farther than those of white noise."""
        return bool(self.knots[0][-1] < WHITE * KNOTS[-1])

    def rarity(self, values: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Values of the images as the sigmas of a Gaussian that are as rare, in the noise of their
        places (pixels, sensor). White noise is left as it is.

        Beyond the last knot movers themselves may be among the values: they go on along a line.
        """
        if self.is_white:
            return values
        seen, sigmas = self.knots
        x = values / self.local[row, column]
        inner = np.interp(x, seen, sigmas)
        for end, far in ((0, 2), (-1, -3)):  # the slope over the last few knots
            slope = (sigmas[end] - sigmas[far]) / max(abs(seen[end] - seen[far]), 1e-6)
            beyond = x < seen[0] if end == 0 else x > seen[-1]
            inner = np.where(beyond, sigmas[end] + abs(slope) * (x - seen[end]), inner)
        return np.asarray(inner)

    def sensor(self, t: np.ndarray, star: np.ndarray) -> np.ndarray:
        """Stars' grid (n, 2) to sensor (n, 2) pixels in frames ``t`` of the window."""
        centre = np.array([(self.width - 1) / 2, (self.height - 1) / 2])
        return apply_motion(self.window.motions[t], star - centre) + centre

    def inside(self, xy: np.ndarray) -> np.ndarray:
        """Whether positions (n, 2) lie in the picture."""
        size = np.array([self.width, self.height])
        return np.asarray(((xy >= -0.5) & (xy <= size - 0.5)).all(axis=1))

    def sample(self, t: np.ndarray, xy: np.ndarray, trails: np.ndarray) -> np.ndarray:
        """Sigma at sensor positions ``xy`` (n, 2) in frames ``t`` along ``trails`` (n, 2), (n,)."""
        self.prepare(t)
        length = np.hypot(*trails.T)
        samples = max(1, int(np.ceil(length.max() / TRAIL_STEP_PX)))
        f = (np.arange(samples) + 0.5) / samples - 0.5
        x = xy[:, 0, None] + trails[:, 0, None] * f
        y = xy[:, 1, None] + trails[:, 1, None] * f
        values = self._cubic(t, x, y)
        return np.asarray(values.mean(1) / trail_noise(length, self.sigma))

    def _cubic(self, t: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Images ``t`` (n,) at ``x``, ``y`` (n, s), (n, s) (Keys 1981, IEEE ASSP 29, 1153).

        Lines between pixels would lower the peaks between them by a tenth, and draw paths to the
        pixels' centres.
        """
        x = np.clip(x, 1, self.width - 2.001)
        y = np.clip(y, 1, self.height - 2.001)
        ix, iy = x.astype(int), y.astype(int)
        wx, wy = keys_weights(x - ix), keys_weights(y - iy)
        corner = (t[:, None] * self.height + iy - 1) * self.width + ix - 1
        grid = (np.arange(4)[:, None] * self.width + np.arange(4)).ravel()
        values = single(self.images.reshape(-1)[corner[..., None] + grid])
        rows = values.reshape(*corner.shape, 4, 4)
        return np.asarray(np.einsum("nsj,nsj->ns", np.einsum("nsji,nsi->nsj", rows, wx), wy))


def keys_weights(f: np.ndarray) -> np.ndarray:
    """Weights (..., 4) of the four pixels around a place at ``f`` (...) after the second."""
    f = np.asarray(f, np.float32)
    g = 1 - f
    return np.stack(
        [
            -0.5 * f * g * g,
            1 + f * f * (1.5 * f - 2.5),
            1 + g * g * (1.5 * g - 2.5),
            -0.5 * g * f * f,
        ],
        -1,
    )


def trail_noise(length: np.ndarray, sigma: float) -> np.ndarray:
    """Noise of the mean of a unit-noise matched image along ``length`` pixels, (n,)."""
    return np.asarray(np.interp(np.asarray(length) / sigma, *_trail_tables()[:2]))


def sharpness(length: np.ndarray, sigma: float) -> np.ndarray:
    """Curvature of the matched filter's peak along a trail, relative to a point's, (n,), 0 to 1.

    The autocorrelation of a Gaussian-smoothed box falls off ever more slowly along a longer box.
    """
    lengths, _, curve = _trail_tables()
    return np.asarray(np.interp(np.asarray(length) / sigma, lengths, curve))


@cache
def _trail_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lengths in sigma, and for each the noise of the mean and the sharpness along the trail."""
    lengths = np.linspace(0, 100, 801)
    count = 192
    f = (np.arange(count) + 0.5) / count
    apart = np.abs(np.subtract.outer(f, f))[0]  # the mean over all pairs, by their distance
    pairs = np.where(np.arange(count) == 0, count, 2 * (count - np.arange(count))) / count**2
    bell = np.exp(-((lengths[:, None] * apart) ** 2) / 4)
    mean = bell @ pairs
    curve = (bell * (1 - (lengths[:, None] * apart) ** 2 / 2)) @ pairs / mean
    return lengths, np.sqrt(mean), np.clip(curve, 0.02, 1.0)


def basis(frames: np.ndarray, kind: int) -> np.ndarray:
    """Basis (n, k) over ``frames``: ``kind`` 1..3 a polynomial, more: a cubic spline of so many."""
    t = (frames - frames[0]) / max(1, frames[-1] - frames[0])
    if kind <= 3:
        return np.stack([(2 * t - 1) ** j for j in range(kind + 1)], 1)
    inner = np.linspace(0, 1, kind - 2)[1:-1]
    knots = np.concatenate([[0] * 4, inner, [1] * 4])
    return np.asarray(BSpline.design_matrix(np.clip(t, 0, 1 - 1e-9), knots, 3).toarray())


def smooth_snr(snr: np.ndarray) -> np.ndarray:
    """The mover's SNR in each frame as far as it can be told from noise, (n,), >= 0.

    The mean, and so much of the running deviation from it as exceeds noise (a Wiener filter).
    """
    mean = max(float(snr.mean()), 0.0)
    if len(snr) < 3:
        return np.maximum(snr, 0.0)
    excess = max(float(snr.var()) - 1.0, 0.0)
    gain = excess / (excess + 1.0)
    return np.maximum(mean + gain * (snr - mean), 0.0)


def is_glint(snr: np.ndarray) -> np.ndarray:
    """Which frames (n,) are a flash that is not the mover's: up to one in GLINT_FRAMES that stand
    4 sigma over the median. A cosmic ray must not bend a faint path towards itself; a mover that
    flashes does so more often."""
    limit = max(4.0, float(np.median(snr)) + 4.0) if len(snr) else 0.0
    flash = snr > limit
    return flash if flash.sum() <= len(snr) // GLINT_FRAMES else np.zeros(len(snr), bool)


def log_likelihood(snr: np.ndarray) -> float:
    """Of a mover with these SNR per frame (n,), against none: its brightness varies from frame to
    frame about its mean, as a Gaussian whose variance is what noise does not explain.

    Its slope in each frame's SNR is `smooth_snr`.
    """
    if len(snr) < 3:
        return float((np.maximum(snr, 0.0) ** 2).sum() / 2)
    mean = max(float(snr.mean()), 0.0)
    excess = max(float(snr.var()) - 1.0, 0.0)
    gain = excess / (excess + 1.0)
    scatter = gain * float(((snr - snr.mean()) ** 2).sum()) - len(snr) * np.log1p(excess)
    return len(snr) * mean**2 / 2 + scatter / 2


def fit_basis(
    matched: MatchedFrames,
    frames: np.ndarray,
    star: np.ndarray,
    design: np.ndarray,
    trail: float,
    rounds: int = ROUNDS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Fisher scoring of a path in the basis ``design`` (n, k), started at ``star`` (n, 2).

    Returns positions on the stars' grid (n, 2), their errors (n, 2), SNR per frame (n,), whether
    it lies in the picture (n,), and ln L.
    """
    coef = np.linalg.lstsq(design, star, rcond=None)[0]
    step = np.zeros_like(coef)
    k = design.shape[1]
    best: tuple[float, np.ndarray] | None = None
    damp = 1.0
    covariance = np.zeros((2 * k, 2 * k))
    for _ in range(rounds):
        place = design @ coef
        snr, gradient, info, inside = _local(matched, frames, place, trail)
        used = inside & ~is_glint(snr)
        f = np.where(used, smooth_snr(np.where(used, snr, np.median(snr))), 0.0)
        value = log_likelihood(snr[used])
        if best is not None and value < best[0] - 1e-9:
            damp *= 0.5
            coef = best[1] + damp * step
            if damp < 0.1:
                coef = best[1]
                break
            continue
        best = (value, coef)
        slope = np.concatenate([design.T @ (f * gradient[:, j]) for j in (0, 1)])
        fisher = np.zeros((2 * k, 2 * k))
        for i in (0, 1):
            for j in (0, 1):
                weight = f**2 * info[:, i, j]
                fisher[i * k : i * k + k, j * k : j * k + k] = (design * weight[:, None]).T @ design
        fisher += 1e-9 * np.eye(2 * k)
        covariance = np.linalg.inv(fisher)
        step = (covariance @ slope).reshape(2, k).T
        longest = float(np.abs(design @ step).max())
        step = step * min(1.0, STEP_MAX_PX / max(longest, 1e-12))
        damp = 1.0
        coef = coef + step
        if longest < 0.005:
            break
    place = design @ coef
    snr, gradient, info, inside = _local(matched, frames, place, trail)
    if best is not None and log_likelihood(snr[inside & ~is_glint(snr)]) < best[0]:
        place = design @ best[1]
        snr, gradient, info, inside = _local(matched, frames, place, trail)
    # the path was drawn to the noise's peaks: the squared score has grown by the fit's freedom
    score = max(float(np.where(inside, snr, 0.0).sum()) ** 2 / max(1, inside.sum()), 1.0)
    covariance = covariance / max(1 - 2 * k / score, 0.5)
    covariance = covariance * excess_noise(
        gradient, info, np.maximum(snr, 0) * inside, matched.sigma
    )
    error = np.stack(
        [
            np.sqrt(np.einsum("nk,kl,nl->n", design, covariance[s, s], design))
            for s in (slice(0, k), slice(k, 2 * k))
        ],
        1,
    )
    return place, error, snr, inside, log_likelihood(snr[inside & ~is_glint(snr)])


def _local(
    matched: MatchedFrames, frames: np.ndarray, place: np.ndarray, trail: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """SNR (n,), its gradient (n, 2), information per unit SNR squared (n, 2, 2), inside (n,)."""
    t = frames - matched.window.first
    xy = matched.sensor(t, place)
    trails = trail * motion_per_frame(xy, frames)
    inside = matched.inside(xy)
    beside = SLOPE_PX * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    around = (xy + beside[:, None]).reshape(-1, 2)
    values = matched.sample(np.tile(t, 5), around, np.tile(trails, (5, 1))).reshape(5, -1)
    snr = values[0]
    gradient = np.stack([values[1] - values[2], values[3] - values[4]], 1) / (2 * SLOPE_PX)
    length = np.hypot(*trails.T)
    along = np.where(length[:, None] > 1e-6, trails / np.maximum(length, 1e-6)[:, None], 0.0)
    across = 1 / (2 * matched.sigma**2)
    keep = sharpness(length, matched.sigma)
    info = across * (
        np.eye(2) - ((1 - keep)[:, None, None] * along[:, :, None] * along[:, None, :])
    )
    return snr, gradient, info, inside


def excess_noise(gradient: np.ndarray, info: np.ndarray, weight: np.ndarray, sigma: float) -> float:
    """How much more the slopes along a fitted path vary than unit noise would make them, >= 1.

    A bright mover brings photon noise of its own, a codec rewrites its shape: the scatter of the
    slopes (n, 2) about zero, which is what the fit leaves, measures either. ``info`` (n, 2, 2) is
    the variance of a slope in unit noise; ten frames of that stand in for short paths.
    """
    # a slope over a finite step
    step = sigma**2 / SLOPE_PX**2 * (1 - np.exp(-(SLOPE_PX**2) / sigma**2))
    expected = step * np.stack([info[:, 0, 0], info[:, 1, 1]], 1)
    w = (weight**2)[:, None]
    prior = 10 * float((w * expected).sum()) / max(1, int((weight > 0).sum()))
    seen, wanted = float((w * gradient**2).sum()), float((w * expected).sum())
    return max(1.0, (seen + prior) / max(wanted + prior, 1e-12))


def fit_path(
    matched: MatchedFrames,
    frames: np.ndarray,
    star: np.ndarray,
    trail: float,
    kinds: tuple[int, ...],
    *,
    rounds: int = ROUNDS,
) -> Fit:
    """The best path through ``star`` (n, 2) in ``frames`` (of the recording); see ``Fit``.

    ``kinds``: the bases to choose from (see ``basis``), simplest first.
    """
    chosen = None
    for kind in kinds:
        if kind + 1 > max(2, len(frames) // 2) and chosen is not None:
            break
        design = basis(frames, min(kind, max(1, len(frames) - 1)))
        # from the same start each time: a stiff path may have slid off a mover that changed speed
        result = fit_basis(matched, frames, star, design, trail, rounds)
        bic = design.shape[1] * 2 * np.log(max(2, result[3].sum())) - 2 * result[4]
        if chosen is None or bic < chosen[0] - 2:
            chosen = (bic, result)
    assert chosen is not None
    return _observed(matched, frames, chosen[1], trail)


def fit_trail(
    matched: MatchedFrames,
    frames: np.ndarray,
    star: np.ndarray,
    trail: float,
    kinds: tuple[int, ...],
) -> Fit:
    """``fit_path`` as a point and as a trail, where the motion lets them differ; the better one.

    ``trail``: the guess, 0 or 1, that is kept where they do not.
    """
    fit = fit_path(matched, frames, star, trail, kinds)
    if len(fit.frame) < 2:
        return fit
    way = np.hypot(fit.star_x[-1] - fit.star_x[0], fit.star_y[-1] - fit.star_y[0])
    if way / (fit.frame[-1] - fit.frame[0]) < TRAIL_FROM_PX:
        return fit
    other = fit_path(matched, frames, star, 1.0 - trail, kinds)
    return other if other.score > fit.score else fit


def _observed(
    matched: MatchedFrames,
    frames: np.ndarray,
    result: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float],
    trail: float,
) -> Fit:
    """The fitted path as positions and brightness in the frames where it is in the picture."""
    place, error, snr, inside, _ = result
    t = frames - matched.window.first
    xy = matched.sensor(t, place)
    trails = trail * motion_per_frame(xy, frames)
    column, row = np.clip(xy.round().astype(int), 0, [matched.width - 1, matched.height - 1]).T
    noise = matched.window.noise[row, column]
    # the mean along a trail gathers light and noise of more pixels than a point does
    flux_err = noise / (matched.norm * trail_noise(np.hypot(*trails.T), matched.sigma))
    # where a codec rewrote the light, its shape is less to be trusted, too
    middle = [(matched.width - 1) / 2, (matched.height - 1) / 2]
    stars = matched.window.settled.error_at(t, xy - middle)
    error = np.sqrt(error**2 + stars[:, None] ** 2 + MODEL_PX**2) * matched.window.tail
    score = float(snr[inside].sum() / np.sqrt(max(1, inside.sum())))
    xy, place, error, snr = xy[inside], place[inside], error[inside], snr[inside]
    flux_err = flux_err[inside]
    return Fit(
        *(frames[inside], xy[:, 0], xy[:, 1], error[:, 0], error[:, 1], place[:, 0], place[:, 1]),
        *(snr, snr * flux_err, flux_err, score, trail),
    )


def motion_per_frame(xy: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Velocity (n, 2) in pixels per frame of positions ``xy`` (n, 2)."""
    return np.gradient(xy, frames, axis=0) if len(frames) > 1 else np.zeros_like(xy)
