"""The settings of clustering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from warte.core.errors import SettingsError

Features = Literal["pixels", "texture", "learned"]
Method = Literal["kmeans", "mixture", "hdbscan"]

LARGEST_K = 254  # clusters are 1 to 254 in an 8-bit picture: 0 is no data, 255 noise


@dataclass(frozen=True)
class ClusterSettings:
    """How pixels are put into clusters.

    The answer does not depend on `chunk`, nor on the number of processes.
    """

    k: int = 8  # clusters; hdbscan finds their number itself
    features: Features = "pixels"  # what is compared: the bands, textures, or learned patches
    method: Method = "kmeans"
    bands: tuple[str, ...] = ()  # names of the bands to use; none: all
    seed: int = 0  # of the sample and of the starts
    starts: int = 10  # k-means++ starts on the sample; the best goes on with all pixels
    sample: int = 32_768  # pixels of the sample
    iterations: int = 300  # passes over all pixels, at most
    tolerance: float = 1e-4  # stop when centres move less: squared, share of the mean variance
    standardise: bool = False  # divide each band by its standard deviation; textures always are
    radius: int = 2  # of the window of textures and learned patches (pixels)
    components: int = 8  # learned features
    smallest: int = 100  # pixels of the sample that make a cluster of hdbscan
    chunk: int = 2**18  # pixels read at a time

    def __post_init__(self) -> None:
        for flag, value, allowed in (
            ("features", self.features, get_args(Features)),
            ("method", self.method, get_args(Method)),
        ):
            if value not in allowed:
                raise SettingsError(f"--{flag} is {value}; choose one of {', '.join(allowed)}")
        for flag, number, low, high in (
            ("k", self.k, 2, LARGEST_K),
            ("seed", self.seed, 0, 2**63 - 1),
            ("starts", self.starts, 1, 1000),
            ("sample", self.sample, 256, 2**20),
            ("iterations", self.iterations, 1, 10**6),
            ("radius", self.radius, 1, 16),
            ("components", self.components, 1, 64),
            ("smallest", self.smallest, 2, 2**20),
            ("chunk", self.chunk, 64, 2**28),
        ):
            if not low <= number <= high:
                raise SettingsError(f"--{flag} is {number}; it must be from {low} to {high}")
        if not 0 <= self.tolerance < 1:
            raise SettingsError(
                f"--tolerance is {self.tolerance}; it must be 0 or more and below 1"
            )
