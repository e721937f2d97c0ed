"""What a track is: satellite, aircraft or meteor, with a probability.

A small network (one hidden layer) on a dozen numbers that a person would look at too: how long
and how fast, how steady, whether it blinks, how it brightens and fades. It was trained by
``warte sky train`` on tracks that ``find`` made of simulated recordings.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from warte.core.errors import InputError
from warte.sky.find.join import Track

WEIGHTS = "kind.safetensors"
NAMES = ("satellite", "aircraft", "meteor")
FEATURES = (
    "log_duration_s",
    "log_frames",
    "log_speed_px_frame",
    "log_way_px",
    "log_snr",
    "log_snr_peak",
    "unsteady",
    "dark_fraction",
    "peak_to_median",
    "flash_rate",
    "periodic",
    "single_peak",
    "slowing",
    "curved",
    "lamps",
    "trailed",
)
SURE_ENOUGH = 0.5  # under this probability the kind is unknown


def features(track: Track, fps: float) -> np.ndarray:
    """The numbers in FEATURES, (len(FEATURES),) float64, all finite."""
    n = len(track.frame)
    lasted = float(track.frame[-1] - track.frame[0] + 1)
    way = float(np.hypot(track.x[-1] - track.x[0], track.y[-1] - track.y[0]))
    snr = np.asarray(track.snr, float)
    mean = max(float(snr.mean()), 0.1)
    median = max(float(np.median(snr)), 0.3)
    peak = float(np.sort(snr)[-max(1, n // 20) :].mean())
    excess = max(float(snr.var()) - 1.0, 0.0)
    dark = float((snr < 0.3 * mean).mean())
    bright = snr > median + 0.5 * max(peak - median, 3.0)
    flashes = float((np.diff(bright.astype(int)) > 0).sum())
    values = (
        np.log10(lasted / fps),
        np.log10(lasted),
        np.log10(way / max(1.0, lasted - 1) + 0.01),
        np.log10(way + 1),
        np.log10(mean),
        np.log10(max(peak, 0.1)),
        np.sqrt(excess) / mean,
        dark,
        np.log10(max(peak, 0.3) / median),
        flashes / (lasted / fps + 0.5),
        periodicity(track.frame, snr, fps),
        single_peak(snr),
        slowing(track),
        curved(track),
        float(track.lamps),
        track.trail,
    )
    return np.nan_to_num(np.array(values, float), posinf=0.0, neginf=0.0)


def periodicity(frame: np.ndarray, snr: np.ndarray, fps: float) -> float:
    """Highest autocorrelation of the light curve at lags of 0.5 to 2 s, 0 to 1."""
    series = np.zeros(int(frame[-1] - frame[0]) + 1)
    series[frame - frame[0]] = snr - snr.mean()
    power = float((series**2).sum())
    low, high = max(2, round(0.5 * fps)), min(round(2.0 * fps), len(series) * 2 // 3)
    if high <= low or power <= len(series):
        return 0.0
    spectrum = np.abs(np.fft.rfft(series, 2 * len(series))) ** 2
    lagged = np.fft.irfft(spectrum)[: len(series)] / power
    return float(np.clip(lagged[low : high + 1].max(), 0.0, 1.0))


def single_peak(snr: np.ndarray) -> float:
    """How well one rise and one fall describe the light curve, 0 to 1 (explained variance)."""
    n = len(snr)
    if n < 3:
        return 1.0
    t = np.linspace(-1, 1, n)
    power = np.vander(t, min(4, n - 1))
    rest = snr - power @ np.linalg.lstsq(power, snr, rcond=None)[0]
    return float(np.clip(1 - rest.var() / max(float(snr.var()), 1e-9), 0.0, 1.0))


def slowing(track: Track) -> float:
    """Speed in the last third against the first, minus 1; -1 to 3."""
    n = len(track.frame) // 3
    if n < 1:
        return 0.0
    speed = [
        np.hypot(track.x[b] - track.x[a], track.y[b] - track.y[a])
        / max(1, track.frame[b] - track.frame[a])
        for a, b in ((0, n), (-1 - n, -1))
    ]
    return float(np.clip(speed[1] / max(speed[0], 0.05) - 1, -1, 3))


def curved(track: Track) -> float:
    """Largest distance from the straight line between the ends, against its length, 0 to 1."""
    chord = np.array([track.x[-1] - track.x[0], track.y[-1] - track.y[0]])
    length = float(np.hypot(*chord))
    if length < 1:
        return 0.0
    off = (track.x - track.x[0]) * chord[1] - (track.y - track.y[0]) * chord[0]
    return float(np.clip(np.abs(off).max() / length**2, 0.0, 1.0))


@dataclass(frozen=True)
class Kinds:
    """The trained classifier: standardise, one hidden layer, softmax.

    ``mean``, ``scale`` (F,), ``hidden`` (F, H), ``hidden_bias`` (H,), ``out`` (H, 3),
    ``out_bias`` (3,).
    """

    mean: np.ndarray
    scale: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray

    def probabilities(self, values: np.ndarray) -> np.ndarray:
        """(..., 3) in the order of NAMES, from features (..., F)."""
        z = np.clip((values - self.mean) / self.scale, -5, 5)
        score = np.tanh(z @ self.hidden + self.hidden_bias) @ self.out + self.out_bias
        score = np.exp(score - score.max(axis=-1, keepdims=True))
        return np.asarray(score / score.sum(axis=-1, keepdims=True))

    def decide(self, track: Track, fps: float) -> tuple[str, float]:
        """Kind and its probability; 'unknown' (with the best probability) where none is likely."""
        chance = self.probabilities(features(track, fps))
        best = int(chance.argmax())
        name = NAMES[best] if chance[best] >= SURE_ENOUGH else "unknown"
        return name, float(chance[best])


def load_kinds(weights: Path | None = None) -> Kinds:
    """The classifier of the folder ``weights``, or of the package.

    Raises InputError where the file is missing or not one that ``warte sky train`` wrote.
    """
    folder = Path(str(files("warte.sky") / "weights")) if weights is None else weights
    path = folder / WEIGHTS
    try:
        stored = load_file(path)
        kinds = Kinds(**{n: stored[n].astype(float) for n in Kinds.__dataclass_fields__})
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path} does not hold weights of the kind classifier ({reason}): give a folder made "
            "by 'warte sky train', or none for those of the package"
        ) from error
    if kinds.hidden.shape[0] != len(FEATURES):
        raise InputError(
            f"{path} was trained on {kinds.hidden.shape[0]} features, this version has "
            f"{len(FEATURES)}: train again with 'warte sky train'"
        )
    return kinds
