"""Training on simulated recordings."""

from warte.sky.train.clips import Clip, ClipSettings, make_clip
from warte.sky.train.unet import TrainSettings, train, validate

__all__ = ["Clip", "ClipSettings", "TrainSettings", "make_clip", "train", "validate"]
