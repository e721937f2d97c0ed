"""Training on simulated recordings."""

from warte.sky.train.clips import Clip, ClipSettings, make_clip
from warte.sky.train.kind import KindSettings, copy_weights, train_kinds
from warte.sky.train.unet import TrainSettings, train, validate

__all__ = [
    "Clip",
    "ClipSettings",
    "KindSettings",
    "TrainSettings",
    "copy_weights",
    "make_clip",
    "train",
    "train_kinds",
    "validate",
]
