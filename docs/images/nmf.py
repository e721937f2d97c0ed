"""Makes the pictures of docs/nmf.md: `python docs/images/nmf.py [FOLDER]`, here if left out.

The data come from the registry: from the folder named by WARTE_DATA, or `warte data get NAME`.
"""

import sys
from pathlib import Path

import av
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.signal import ShortTimeFFT, get_window

from warte.core.data import registry
from warte.nmf import NMF

INK, GREY, BLUE, RED = "#222222", "#9a9a9a", "#1f5fa8", "#c8472b"
RATE_HZ, HOP, WINDOW = 22050, 512, 2048
NOTES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


# sound: notes of a trumpet ----------------------------------------------------------------------


def decode(path: Path) -> np.ndarray:
    """The samples of a sound file, one channel at RATE_HZ, from -1 to 1."""
    with av.open(str(path)) as file:
        to_one = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
        frames = [part for frame in file.decode(audio=0) for part in to_one.resample(frame)]
        frames += to_one.resample(None)
    return np.concatenate([frame.to_ndarray().ravel() for frame in frames])


def pitch_hz(frequencies: np.ndarray, spectrum: np.ndarray) -> float:
    """The lowest frequency at which a spectrum has a strong peak."""
    inner = spectrum[1:-1]
    peaks = (inner > spectrum[:-2]) & (inner >= spectrum[2:]) & (inner > 0.25 * spectrum.max())
    return float(frequencies[1:-1][peaks][0])


def note_of(frequency_hz: float) -> str:
    """The name of the nearest note of the piano."""
    number = round(69 + 12 * np.log2(frequency_hz / 440))
    return f"{NOTES[number % 12]}{number // 12 - 1}"


def trumpet() -> Figure:
    """A spectrogram, the spectra of its notes, and when each sounds."""
    sound = decode(registry.get("trumpet.ogg"))[: int(3.5 * RATE_HZ)]
    transform = ShortTimeFFT(get_window("hann", WINDOW), HOP, RATE_HZ)
    waves = transform.stft(sound)  # (frequencies, frames), complex
    size = np.abs(waves).astype(np.float32)
    model = NMF(8, beta_loss="kullback-leibler", init="nndsvda", max_iter=300)
    activations = model.fit_transform(size).T  # here columns are time, and h holds the spectra
    spectra, activations = activations, model.components_
    pitch = np.array([pitch_hz(transform.f, one) for one in spectra])
    order = np.argsort(pitch)
    spectra, activations, pitch = spectra[order], activations[order], pitch[order]
    loud = spectra.max(axis=1, keepdims=True)
    spectra, activations = spectra / loud, activations * loud
    names = [note_of(one) for one in pitch]
    seconds = np.arange(size.shape[1]) * HOP / RATE_HZ
    chosen = int(np.argmax(activations.sum(axis=1)))
    share = np.outer(spectra[chosen], activations[chosen]) / (spectra.T @ activations + 1e-12)

    def decibels(part: np.ndarray) -> np.ndarray:
        return 20 * np.log10(np.maximum(part / size.max(), 1e-4))

    figure = plt.figure(figsize=(8.6, 6.6), constrained_layout=True)
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 2), height_ratios=(1, 0.75, 1))
    left = figure.add_subplot(grid[:, 0])
    recorded, melody, alone = (figure.add_subplot(grid[place, 1]) for place in range(3))
    top = slice(0, int(3300 / RATE_HZ * WINDOW))
    khz = transform.f[top] / 1000
    look = {"cmap": "magma", "vmin": -50, "vmax": 0, "shading": "nearest", "rasterized": True}
    for axis, part in ((recorded, size), (alone, np.abs(share * waves))):
        axis.pcolormesh(seconds, khz, decibels(part[top]), **look)
        axis.set(ylabel="frequency, kHz")
    recorded.set(title="A trumpet plays a phrase: how loud each frequency is")
    alone.set(title=f"All of {names[chosen]} alone, taken out of the recording", xlabel="time, s")
    for place, (spectrum, name) in enumerate(zip(spectra, names, strict=True)):
        colour = RED if place == chosen else BLUE
        left.plot(khz, place + 0.85 * spectrum[top], color=colour, lw=0.9)
        left.text(0.04, place + 0.12, name, color=colour, fontsize=9)
    left.set(title="W: 8 spectra that NMF found", xlabel="frequency, kHz", yticks=[], xlim=(0, 3.3))
    melody.pcolormesh(
        seconds, np.arange(len(names)), activations, cmap="Blues", shading="nearest",
        vmax=0.7 * activations.max(), rasterized=True,
    )  # fmt: skip
    melody.set_yticks(np.arange(len(names)), names, fontsize=8)
    melody.set(title="H: when each of them sounds, which is the melody")
    for axis in (recorded, melody):
        axis.set_xticklabels([])
    return figure


# pictures: parts of digits ----------------------------------------------------------------------


def digits() -> Figure:
    """Handwritten digits, the 16 parts they are made of, and one digit put together."""
    with np.load(registry.get("digits.npz"), allow_pickle=False) as file:
        x = file["X"]
    model = NMF(16, random_state=0, tol=1e-6, max_iter=500)
    w = model.fit_transform(x)
    h = model.components_
    figure = plt.figure(figsize=(8.6, 3.4), constrained_layout=True)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    left, right = upper.subfigures(1, 2, wspace=0.06)
    for part, pictures, title in (
        (left, x[:16], "16 of the 1797 handwritten digits"),
        (right, h, "the 16 parts that NMF found in all of them"),
    ):
        part.suptitle(title, fontsize=10, fontweight="bold")
        for axis, picture in zip(part.subplots(2, 8).flat, pictures, strict=True):
            axis.imshow(picture.reshape(8, 8), cmap="gray_r")
            axis.set(xticks=[], yticks=[])
    best = np.argmin([np.linalg.norm(x[row] - w[row] @ h) for row in range(16)])
    _sum_of_parts(lower, x, w, h, row=int(best))
    return figure


def _sum_of_parts(figure: "matplotlib.figure.SubFigure", x: np.ndarray, w: np.ndarray,
                  h: np.ndarray, row: int) -> None:  # fmt: skip
    """Draw one row of x and the parts that are added to give it."""
    amounts = w[row, :, None] * h
    order = np.argsort(-amounts.sum(axis=1))
    shown = order[:6]
    pictures = [x[row], w[row] @ h, *amounts[shown], amounts[order[6:]].sum(axis=0)]
    titles = ["a digit", "its model", *[f"part {place + 1}" for place in shown], "10 others"]
    signs = ["≈", "=", *["+"] * 6, ""]
    figure.suptitle(
        "each digit is a sum of parts, and nothing is ever taken away",
        fontsize=10, fontweight="bold",
    )  # fmt: skip
    for axis, picture, title, sign in zip(
        figure.subplots(1, len(pictures)), pictures, titles, signs, strict=True
    ):
        axis.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=0, vmax=x[row].max())
        axis.set_title(title, fontsize=9, fontweight="normal")
        axis.set(xticks=[], yticks=[])
        axis.text(1.12, 0.5, sign, transform=axis.transAxes, ha="center", va="center")


# spectra: templates -----------------------------------------------------------------------------

# Where to write the names of the lines.
LINES = {
    "Mg II": 2799,
    "Hδ": 4102,
    "Hγ": 4341,
    "Hβ": 4840,
    "[O III]": 5030,
    "Hα": 6563,
}  # ångström, about
EPOCH, LOW, HIGH = 40, 4760, 5100  # the spectrum that is shown, and the range hidden in it


def spectra() -> Figure:
    """Noisy spectra of one quasar with hidden pixels, and the templates that all share."""
    with np.load(registry.get("rm017_epochs.npz"), allow_pickle=False) as file:
        flux, ivar, loglam, z = (file[name] for name in ("flux", "ivar", "loglam", "z"))
    wavelength = 10**loglam / (1 + z[0])
    hidden = (wavelength > LOW) & (wavelength < HIGH)
    seen = ivar.copy()
    seen[EPOCH, hidden] = 0
    model = NMF(2, solver="nearly", random_state=0, max_iter=500)
    w = model.fit_transform(flux, weights=seen)
    share = np.mean(w, axis=0)
    order = np.argsort(model.components_[:, wavelength < 4000].sum(axis=1) * -share)
    h = model.components_[order] * share[order, None]
    amounts = w[:, order] / share[order]
    figure = plt.figure(figsize=(8.6, 6.6), constrained_layout=True)
    grid = figure.add_gridspec(3, 1, height_ratios=(1, 1, 0.6))
    above, below, course = (figure.add_subplot(grid[place]) for place in range(3))
    names = ("blue light with broad lines: it comes and goes", "reddish light: it stays")
    for template, amount, colour, name in zip(h, amounts.T, (BLUE, RED), names, strict=True):
        above.plot(wavelength, template, color=colour, lw=0.9, label=name)
        course.plot(np.arange(len(amount)) + 1, amount, color=colour, marker=".", lw=0.8)
    below.axvspan(LOW, HIGH, color="#f3e3b3", label="hidden from the fit")
    below.plot(
        wavelength, flux[EPOCH], color=GREY, lw=0.5, label=f"spectrum {EPOCH + 1} as measured"
    )
    below.plot(wavelength, amounts[EPOCH] @ h, color=INK, lw=0.9, label="sum of both templates")
    above.set(title=f"Two templates, learned from {len(flux)} noisy spectra of one galaxy")
    below.set(title="One of the spectra, and what the templates make of it, the hidden part too")
    course.set(title="How much of each template is in each spectrum", xlabel="number of spectrum")
    for axis, highest in ((above, 16.5), (below, 19)):
        axis.set(xlim=(2520, 7000), ylim=(-1, highest), ylabel="flux")
        axis.legend(loc="upper center", frameon=False, ncols=3, fontsize=8)
    for name, place in LINES.items():
        above.text(place, 0.1, name, fontsize=8, ha="center", color=INK)
    below.set(xlabel="wavelength at rest, ångström")
    course.set(ylabel="amount, mean 1", ylim=(0, None))
    return figure


def main(folder: Path) -> None:
    """Draw all pictures into a folder."""
    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold"})
    for draw in (trumpet, digits, spectra):
        figure = draw()
        figure.savefig(folder / f"nmf_{draw.__name__}.png", dpi=95)
        plt.close(figure)


if __name__ == "__main__":
    matplotlib.use("Agg")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
