"""What a track is: satellite, aircraft or meteor, with a probability.

A small network (one hidden layer) on some twenty numbers that a person would look at too: how long
and how fast, how steady, whether it blinks, how it brightens and fades. It was trained by
``warte sky train`` on tracks that ``find`` made of simulated recordings.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from warte.core.errors import InputError
from warte.sky.find.join import Track

WEIGHTS = "kind.safetensors"
ORDER = "features"  # entry of the file's header that holds the names in FEATURES
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
    "rough",
    "spike",
    "log_spike_snr",
    "spike_rate",
    "spikes_periodic",
    "log_spike_period_s",
    "periodic",
    "log_period_s",
    "single_peak",
    "start_level",
    "end_level",
    "slowing",
    "curved",
    "several_lamps",
    "trailed",
)
STROBE_S = 1.5  # an aircraft's strobe flashes once in this time or more often
SPIKE_SNR = 4.0  # a flash stands out so much
SHORTEST_S, LONGEST_S = 0.15, 2.5  # periods looked for
LIMIT = 3.0  # features count for no more standard deviations than this
SURE_ENOUGH = 0.5  # under this probability the kind is unknown


def features(track: Track, fps: float) -> np.ndarray:
    """The numbers in FEATURES, (len(FEATURES),) float64, all finite. ``fps``: frames per second."""
    fps = max(fps, 1e-3)
    n = len(track.frame)
    frames = float(track.frame[-1] - track.frame[0] + 1)
    way = float(np.hypot(track.x[-1] - track.x[0], track.y[-1] - track.y[0]))
    snr = np.asarray(track.snr, float)
    mean = max(float(snr.mean()), 0.1)
    median = max(float(np.median(snr)), 0.3)
    peak = max(float(np.sort(snr)[-max(1, n // 20) :].mean()), 0.3)
    excess = max(float(snr.var()) - 1.0, 0.0)
    above = spikes(snr, fps)
    spike = float(np.sort(above)[-max(1, int(n / fps / STROBE_S)) :].mean())
    spiky = above > max(0.5 * spike, SPIKE_SNR, 0.25 * median)
    strobes, strobe_s = periodicity(track.frame, np.where(spiky, above, 0.0), fps)
    periodic, period_s = periodicity(track.frame, snr, fps)
    edge = max(1, n // 10)
    values = (
        np.log10(frames / fps),
        np.log10(frames),
        np.log10(way / max(1.0, frames - 1) + 0.01),
        np.log10(way + 1),
        np.log10(mean),
        np.log10(peak),
        np.sqrt(excess) / mean,
        float((snr < 0.3 * mean).mean()),
        np.log10(peak / median),
        rough(snr),
        np.clip(spike / max(median, 2.0), 0, 5),
        np.log10(max(spike, 1.0)),
        float((np.diff(spiky.astype(int), prepend=0) > 0).sum()) / (frames / fps + 0.5),
        strobes,
        np.log10(strobe_s),
        periodic,
        np.log10(period_s),
        single_peak(snr),
        np.clip(snr[:edge].mean() / peak, -0.5, 1.5),
        np.clip(snr[-edge:].mean() / peak, -0.5, 1.5),
        slowing(track),
        curved(track),
        float(track.lamps > 1),
        track.trail,
    )
    return np.nan_to_num(np.array(values, float), posinf=0.0, neginf=0.0)


def spikes(snr: np.ndarray, fps: float) -> np.ndarray:
    """The light curve less its running median over 0.4 s (5 frames at least), (n,)."""
    reach = int(np.clip(round(0.2 * fps), 2, max(2, len(snr) // 2)))
    padded = np.pad(snr, reach, mode="reflect" if len(snr) > reach else "edge")
    return np.asarray(snr - np.median(sliding_window_view(padded, 2 * reach + 1), axis=1))


def rough(snr: np.ndarray) -> float:
    """How much of the light curve's change is from one frame to the next, 0 (slow) to 2.

    The ratio of von Neumann 1941 (Ann. Math. Stat. 12, 367), halved, both parts less their noise.
    """
    excess = float(snr.var()) - 1.0
    if len(snr) < 3 or excess < 0.5:
        return 0.0
    return float(np.clip(((np.diff(snr) ** 2).mean() / 2 - 1.0) / excess, 0.0, 2.0))


def periodicity(frame: np.ndarray, snr: np.ndarray, fps: float) -> tuple[float, float]:
    """Highest autocorrelation of the light curve, 0 to 1, and its lag (s).

    Lags from SHORTEST_S to LONGEST_S; 0 and 1 s where the curve is too short or only noise.
    """
    series = np.zeros(int(frame[-1] - frame[0]) + 1)
    series[frame - frame[0]] = snr - snr.mean()
    power = float((series**2).sum())
    low, high = max(2, round(SHORTEST_S * fps)), min(round(LONGEST_S * fps), len(series) * 2 // 3)
    if high <= low or power <= len(series):
        return 0.0, 1.0
    spectrum = np.abs(np.fft.rfft(series, 2 * len(series))) ** 2
    lagged = np.fft.irfft(spectrum)[: len(series)] / power
    # a slow change is no period: autocorrelation has to fall before it rises again
    rises = np.flatnonzero(np.diff(lagged[: high + 1]) > 0)
    if not len(rises):
        return 0.0, 1.0
    low = min(max(low, int(rises[0])), high)
    best = low + int(lagged[low : high + 1].argmax())
    return float(np.clip(lagged[best], 0.0, 1.0)), best / fps


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
    if max(speed) * n < 3.0:  # pixels: too short a way to tell
        return 0.0
    return float(np.clip(speed[1] / max(speed[0], 0.05) - 1, -1, 3))


def curved(track: Track) -> float:
    """Largest distance from the straight line between the ends, against its length, 0 to 1."""
    chord = np.array([track.x[-1] - track.x[0], track.y[-1] - track.y[0]])
    length = float(np.hypot(*chord))
    if length < 1:
        return 0.0
    off = (track.x - track.x[0]) * chord[1] - (track.y - track.y[0]) * chord[0]
    # a pixel is what noise bends a path by
    return float(np.clip((np.abs(off).max() / length - 1.0) / length, 0.0, 1.0))


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
        z = np.clip((values - self.mean) / self.scale, -LIMIT, LIMIT)
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
        with safe_open(path, framework="np") as stored:
            names = (stored.metadata() or {}).get(ORDER, "").split()
            kinds = Kinds(*(stored.get_tensor(f.name).astype(float) for f in fields(Kinds)))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path} does not hold weights of the kind classifier ({reason}): give a folder made "
            "by 'warte sky train', or none for those of the package"
        ) from error
    if tuple(names) != FEATURES:
        raise InputError(
            f"{path} was trained on other features ({len(names)}) than this version has "
            f"({len(FEATURES)}): train again with 'warte sky train'"
        )
    return kinds


def save_kinds(kinds: Kinds, folder: Path) -> None:
    """Write the classifier into ``folder``, as ``load_kinds`` reads it."""
    # safetensors writes the memory as it lies, so a transposed array would come back scrambled
    arrays = {
        f.name: np.array(getattr(kinds, f.name), np.float32, order="C") for f in fields(kinds)
    }
    save_file(arrays, folder / WEIGHTS, metadata={ORDER: " ".join(FEATURES)})
