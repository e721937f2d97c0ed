"""What every format is turned into: a stream of grey frames with their times."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from warte.core.errors import InputError

Pixels = NDArray[np.float32]
# Opens the file at a frame number and yields (pixels, seconds since frame 0).
Source = Callable[[int], Generator[tuple[Pixels, float], None, None]]


class BreakOffError(Exception):
    """Raised by a source where the file cannot be read any further; the message says why."""


@dataclass(frozen=True)
class Frame:
    """One picture of a recording.

    index: counts from 0.
    pixels: (H, W) grey in the file's own units (0..255 for 8 bit, 0..65535 for 16 bit);
        colour is turned into luminance, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).
    time_s: seconds since frame 0.
    utc: start of the exposure to the microsecond, None when not known.
    """

    index: int
    pixels: Pixels
    time_s: float
    utc: np.datetime64 | None


@dataclass
class Recording:
    """A recording that is read from its file anew, frame by frame, on each call of `frames`.

    frame_count: None where the file does not say; exact once the frames were read to the end.
    fps: frames per second (the mean, where frames are not equally spaced).
    start_utc: start of frame 0, None when not known.
    levels: the step between two grey levels; None for floating-point data.
    saturation: the value at which pixels clip; None when not known.
    warnings: one line each, filled while the frames are read.
    """

    path: Path
    width: int
    height: int
    frame_count: int | None
    fps: float
    start_utc: np.datetime64 | None
    levels: float | None
    saturation: float | None
    source: Source = field(repr=False)
    warnings: list[str] = field(default_factory=list)

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Yield the frames from number `start` on, one at a time.

        A file that breaks off is used up to the break, which is told in `warnings`. NaN and
        infinite pixels become the frame's median. Raises InputError where no frame can be read,
        where a frame has another size than frame 0, or holds no number at all.
        """
        index, repaired, damaged = start, 0, 0
        try:
            with closing(self.source(start)) as raw:
                for pixels, time_s in raw:
                    self._check_size(pixels, index)
                    pixels, count = self._repair(pixels, index)
                    repaired, damaged = repaired + count, damaged + (count > 0)
                    yield Frame(index, pixels, time_s, self._utc(time_s))
                    index += 1
            if index > start:
                self.frame_count = index
        except BreakOffError as reason:
            if index == 0:
                raise InputError(
                    f"{self.path}: not one frame can be read: {reason}; check or copy it again"
                ) from reason
            if index > start:
                self._warn("breaks off", f"breaks off after frame {index - 1}: {reason}")
                self.frame_count = index
        finally:
            if repaired:
                self._warn(
                    "NaN",
                    f"NaN or infinite pixels replaced by the frame's median: {repaired} pixels "
                    f"in {damaged} frames",
                )

    def _utc(self, time_s: float) -> np.datetime64 | None:
        if self.start_utc is None:
            return None
        return self.start_utc + np.timedelta64(round(time_s * 1e6), "us")

    def _check_size(self, pixels: Pixels, index: int) -> None:
        if pixels.shape != (self.height, self.width):
            found = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise InputError(
                f"{self.path}: frame {index} is {found} but frame 0 is {self.width}x{self.height}; "
                "all frames must have one size, split the recording there"
            )

    def _repair(self, pixels: Pixels, index: int) -> tuple[Pixels, int]:
        """Replace what is not finite; returns the pixels and how many were replaced."""
        # A sum is finite only if all terms are, and it is much cheaper than looking at each.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(pixels.sum()):
                return pixels, 0
        good = np.isfinite(pixels)
        if not good.any():
            raise InputError(
                f"{self.path}: frame {index} holds no number, only NaN or infinity; remove it"
            )
        return np.where(good, pixels, np.median(pixels[good])), int(pixels.size - good.sum())

    def _warn(self, topic: str, message: str) -> None:
        """Keep one warning per topic, however often the frames are read."""
        self.warnings[:] = [old for old in self.warnings if not old.startswith(topic)] + [message]


def luminance(red: NDArray, green: NDArray, blue: NDArray) -> Pixels:
    """Grey from colour planes of one shape, ITU-R BT.601 section 2.5.1."""
    grey = np.float32(0.299) * red
    grey += np.float32(0.587) * green
    grey += np.float32(0.114) * blue
    return grey


def parse_time(text: str) -> np.datetime64 | None:
    """ISO 8601 date and time as UTC to the microsecond; None if it is not one.

    A time without an offset is UTC. A date without a time of day gives None: it is not a start.
    """
    text = text.strip()
    if "T" not in text and " " not in text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "us")


def clock(
    stamps: NDArray[np.datetime64],
) -> tuple[NDArray[np.float64], float | None, list[str]]:
    """Times from the stamps of the frames.

    stamps: (N,) datetime64[us], in order of frames.
    Returns seconds since frame 0, (N,); the median rate in frames/s, None where the stamps do
    not tell it; and warnings. Clocks of cameras tick coarsely: where stamps do not increase from
    frame to frame, the frames are spread evenly from the first to the last one.
    """
    seconds = (stamps - stamps[0]) / np.timedelta64(1, "s")
    steps = np.diff(seconds)
    if len(steps) and (steps > 0).all():
        return seconds, 1.0 / float(np.median(steps)), []
    if len(steps) and seconds[-1] > 0:
        fps = len(steps) / float(seconds[-1])
        told = f"time stamps do not always increase; frames are spread evenly, {fps:.6g} frames/s"
        return np.arange(len(seconds)) / fps, fps, [told]
    return seconds, None, []


def needs_fps(path: Path, found: str) -> InputError:
    """The error for a recording that does not say how fast it was taken."""
    return InputError(f"{path}: {found}, so frames have no times; give --fps")
