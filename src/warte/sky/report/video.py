"""annotated.mp4: the recording with its tracks drawn, written frame by frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

from warte.sky.evaluate import TrackPath
from warte.sky.read import Frame
from warte.sky.report.look import KIND_COLOURS, Bytes, Stretch, View, bgr, put_text

# Players stumble over rates outside of this; such recordings are played faster or slower.
SLOWEST_FPS, FASTEST_FPS = 5.0, 60.0
TAIL_FRAMES = 25
STRETCH_EVERY_FRAMES = 25


class AnnotatedVideo:
    """Context manager that writes H.264 (yuv420p) of all frames that are added.

    paths, kinds: the tracks and the kind of each, in the same order.
    fps: rate of the recording; `playback_fps` is the one written.
    step: step of grey levels, None for floating-point data.
    """

    def __init__(
        self,
        path: Path,
        view: View,
        paths: list[TrackPath],
        kinds: list[str],
        fps: float,
        step: float | None,
    ):
        self.view = view
        self.playback_fps = float(np.clip(fps, SLOWEST_FPS, FASTEST_FPS))
        self._paths, self._step = paths, step
        self._colours = [bgr(KIND_COLOURS[kind]) for kind in kinds]
        self._first = np.array([one.first for one in paths], dtype=np.int64)
        self._last = np.array([one.last for one in paths], dtype=np.int64)
        # What is over in a frame or two would not be noticed: its mark stays half a second.
        self._hold = round(self.playback_fps / 2)
        self._stretch: Stretch | None = None
        self._container = av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"})
        rate = Fraction(self.playback_fps).limit_denominator(10000)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height = view.width, view.height
        self._stream.pix_fmt = "yuv420p"
        # The quickest preset: a slower one takes longer than the search for satellites.
        self._stream.options = {"preset": "ultrafast", "crf": "24"}

    def __enter__(self) -> AnnotatedVideo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
        self._container.close()

    def add(self, frame: Frame) -> None:
        """Draw and write the next frame."""
        picture = self.draw(frame)
        planes: Bytes = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)  # type: ignore[assignment]
        shown = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        for packet in self._stream.encode(shown):
            self._container.mux(packet)

    def draw(self, frame: Frame) -> Bytes:
        """(view.height, view.width, 3) BGR bytes: the stretched frame with its marks."""
        if self._stretch is None:
            self._stretch = Stretch.of(frame.pixels, self._step)
        elif frame.index % STRETCH_EVERY_FRAMES == 0:
            # Dusk and clouds change the sky; following it slowly does not flicker.
            self._stretch = self._stretch.blend(Stretch.of(frame.pixels, self._step), 0.3)
        grey = self.view.show(self._stretch.apply(frame.pixels))
        picture: Bytes = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)  # type: ignore[assignment]
        shown = (self._first <= frame.index) & (frame.index <= self._last + self._hold)
        for number in np.flatnonzero(shown):
            self._mark(picture, self._paths[number], self._colours[number], frame.index)
        text = f"frame {frame.index}"
        if frame.utc is not None:
            text += f"   {np.datetime_as_string(frame.utc, unit='ms').replace('T', ' ')} UTC"
        unit = self.view.unit
        put_text(picture, text, (8 * unit, self.view.height - 8 * unit), (190, 190, 190), unit)
        return picture

    def _mark(
        self, picture: Bytes, path: TrackPath, colour: tuple[int, int, int], index: int
    ) -> None:
        """Circle, number and tail of one track."""
        now = min(index, path.last) - path.first
        x, y = self.view.place(path.x[now]), self.view.place(path.y[now])
        unit = self.view.unit
        radius = 10 * unit
        over = index > path.last
        faded = (colour[0] // 2, colour[1] // 2, colour[2] // 2)
        tail = slice(max(0, now - TAIL_FRAMES), now + 1)
        points = np.stack([self.view.place(path.x[tail]), self.view.place(path.y[tail])], axis=1)
        # The tail stays outside the circle, so that it never hides the object.
        points = points[np.hypot(points[:, 0] - x, points[:, 1] - y) >= radius]
        thick = 1 if unit < 1.6 else 2
        if len(points) > 1 and not over:
            fixed = np.rint(points * 16).astype(np.int32)[:, None]
            cv2.polylines(picture, [fixed], False, faded, thick, cv2.LINE_AA, 4)
        centre = (round(float(x) * 16), round(float(y) * 16))
        ring = faded if over else colour
        cv2.circle(picture, centre, round(radius * 16), ring, thick, cv2.LINE_AA, 4)
        left = float(x) + radius > self.view.width - 24 * unit
        low = float(y) - radius < 14 * unit
        beside = float(x) + (-2.4 if left else 0.8) * radius
        above = float(y) + (1.9 if low else -0.8) * radius
        put_text(picture, str(path.track_id), (beside, above), ring, unit)
