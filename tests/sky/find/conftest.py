"""Star fields painted here, with motions that are known, and windows made of plain noise."""

from collections.abc import Callable

import numpy as np
import pytest

from warte.sky.find.prepare import Window
from warte.sky.find.settle import as_followed

Painter = Callable[..., np.ndarray]


def gaussian(shape: tuple[int, int], x: float, y: float, sigma: float) -> np.ndarray:
    """A Gaussian point of peak 1, (H, W)."""
    rows, columns = np.arange(shape[0]) - y, np.arange(shape[1]) - x
    squared = rows[:, None] ** 2 + columns**2
    return np.exp(-squared / (2 * sigma**2))


@pytest.fixture
def paint() -> Painter:
    """Frames (T, H, W) float32 of stars about the picture's centre under motions.

    ``stars`` (n, 3): x, y relative to the centre, peak; ``shift`` (T, 2) pixels; ``turn`` (T,)
    complex: turn and growth about the centre. Noise of one grey level on a sky of 20.
    """

    def make(
        stars: np.ndarray,
        shift: np.ndarray,
        turn: np.ndarray,
        rng: np.random.Generator,
        *,
        shape: tuple[int, int] = (120, 160),
        sigma: float = 1.2,
        noise: float = 1.0,
    ) -> np.ndarray:
        centre_x, centre_y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
        frames = 20.0 + noise * rng.standard_normal((len(shift), *shape))
        for frame, move, grow in zip(frames, shift, turn, strict=True):
            places = (stars[:, 0] + 1j * stars[:, 1]) * grow + complex(*move)
            for place, peak in zip(places, stars[:, 2], strict=True):
                frame += peak * gaussian(shape, centre_x + place.real, centre_y + place.imag, sigma)
        return frames.astype(np.float32)

    return make


@pytest.fixture
def noise_window() -> Callable[..., Window]:
    """A window of Gaussian noise of one grey level per pixel, in which points can be put."""

    def make(
        frames: int,
        shape: tuple[int, int],
        rng: np.random.Generator,
        *,
        psf_sigma_px: float = 1.2,
        first: int = 0,
    ) -> Window:
        return Window(
            first=first,
            cells=np.zeros((frames, shape[0] // 2, shape[1] // 2), np.float32),
            residual=rng.standard_normal((frames, *shape)).astype(np.float32),
            noise=np.ones(shape, np.float32),
            stars=np.zeros((shape[0] // 2, shape[1] // 2), np.float32),
            red=np.ones((shape[0] // 2, shape[1] // 2), np.float32),
            tail=1.0,
            settled=as_followed(np.tile([1.0, 0.0, 0.0, 0.0], (frames, 1)), shape),
            agreed=np.full(frames, 20),
            cell=2,
            psf_sigma_px=psf_sigma_px,
        )

    return make
