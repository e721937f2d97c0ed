"""What the writers put into their files, seen by other programs' eyes, and what they refuse."""

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from warte.core.errors import OutputError, SettingsError
from warte.sky.read import read
from warte.sky.write import write_frames_folder, write_recording

VIDEO = np.arange(4 * 16 * 24, dtype=np.uint16).reshape(4, 16, 24)
START = np.datetime64("2024-05-01T20:15:00.250000")


def test_values_are_rounded_and_clipped(tmp_path: Path) -> None:
    frame = np.array([[-3.0, 0.4, 0.6], [254.4, 255.2, 1e6]])
    write_recording(tmp_path / "a.fits", [frame, frame], fps=1)
    expected = [[0, 0, 1], [254, 255, 255]]
    np.testing.assert_array_equal(next(iter(read(tmp_path / "a.fits").frames())).pixels, expected)
    write_recording(tmp_path / "b.fits", np.array([[[70000, -5]]] * 2), fps=1, bits=16)
    pixels = next(iter(read(tmp_path / "b.fits").frames())).pixels
    np.testing.assert_array_equal(pixels, [[65535, 0]])


def test_frames_are_taken_one_at_a_time(tmp_path: Path) -> None:
    def stream() -> Iterator[NDArray]:
        for index in range(6):
            yield np.full((16, 24), 10 * index, np.uint8)

    for name in ("a.mkv", "a.avi", "a.mp4", "a.fits", "a.fits.fz", "a.ser"):
        write_recording(tmp_path / name, stream(), fps=5, start_utc=START)
        levels = [frame.pixels.mean() for frame in read(tmp_path / name).frames()]
        np.testing.assert_allclose(levels, [0, 10, 20, 30, 40, 50], atol=1)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mp4", "a.mov", "a.fits", "a.ser"])
def test_the_same_frames_make_the_same_file(tmp_path: Path, name: str) -> None:
    for folder in ("one", "two"):
        write_recording(tmp_path / folder / name, VIDEO, fps=25, start_utc=START)
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_ran_before_does_not_change_the_file(tmp_path: Path) -> None:
    # x264 read memory that nobody had written: other work in the process changed its output.
    rng = np.random.default_rng(0)
    frames = np.clip(40 + rng.normal(0, 3, (24, 120, 160)), 0, 255).astype(np.uint8)
    written = set()
    for number in range(4):
        path = tmp_path / f"{number}.mp4"
        write_recording(path, frames, fps=25)
        written.add(path.read_bytes())
        for _ in range(3):
            cv2.phaseCorrelate(rng.random((500, 500)), rng.random((500, 500)))
    assert len(written) == 1


def test_fits_is_standard(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.fits", VIDEO, fps=4, start_utc=START, bits=16)
    write_recording(tmp_path / "a.fits.fz", VIDEO, fps=4, start_utc=START, bits=16)
    for name, number in (("a.fits", 0), ("a.fits.fz", 1)):
        with fits.open(tmp_path / name) as hdus:
            hdus.verify("exception")
            header = hdus[number].header
            np.testing.assert_array_equal(hdus[number].data, VIDEO)
            assert header["DATE-OBS"] == "2024-05-01T20:15:00.250000"
            assert (header["EXPTIME"], header["FPS"]) == (0.25, 4)
    assert (tmp_path / "a.fits").stat().st_size % 2880 == 0


def test_ser_layout(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.ser", VIDEO, fps=4, start_utc=START, bits=16)
    data = (tmp_path / "a.ser").read_bytes()
    assert len(data) == 178 + VIDEO.nbytes + 4 * 8
    assert data[:14] == b"LUCAM-RECORDER"
    numbers = np.frombuffer(data[14:42], "<i4")
    assert numbers.tolist() == [0, 0, 0, 24, 16, 16, 4]
    ticks = np.frombuffer(data[-32:], "<i8")
    # 738,641 days from the year 1 on, of 864e9 ticks each, and 72,900.25 s of the last day.
    assert ticks[0] == 638_501_913_002_500_000
    assert np.diff(ticks).tolist() == [2_500_000] * 3


def test_video_streams(tmp_path: Path) -> None:
    for name, codec, pixel_format in [
        ("a.mkv", "ffv1", "gray16le"),
        ("a.avi", "ffv1", "gray"),
        ("a.mp4", "h264", "yuv420p"),
        ("b.mkv", "h264", "yuv420p"),
    ]:
        bits = 16 if pixel_format == "gray16le" else 8
        chosen = "h264" if name == "b.mkv" else None
        write_recording(tmp_path / name, VIDEO, fps=29.97, bits=bits, codec=chosen)
        with av.open(str(tmp_path / name)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == codec
            frame = next(container.decode(stream))
            assert frame.format.name in (pixel_format, "yuvj420p")
            assert float(stream.average_rate or 0) == pytest.approx(29.97, rel=1e-3)


def test_h264_has_a_key_frame_every_twelve(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    video = rng.normal(60, 5, (30, 32, 48))
    write_recording(tmp_path / "a.mp4", video, fps=25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        keys = [frame.key_frame for frame in container.decode(video=0)]
    assert np.flatnonzero(keys).tolist() == [0, 12, 24]
    coarse = tmp_path / "b.mp4"
    write_recording(coarse, video, fps=25, crf=40)
    assert coarse.stat().st_size < (tmp_path / "a.mp4").stat().st_size / 2


def test_colour_video(tmp_path: Path) -> None:
    red = np.zeros((3, 32, 32, 3), np.uint8)
    red[..., 0] = 200
    for name in ("a.mp4", "a.mkv"):
        write_recording(tmp_path / name, red, fps=5)
        with av.open(str(tmp_path / name)) as container:
            shown = next(container.decode(video=0)).to_ndarray(format="rgb24")
        np.testing.assert_allclose(shown[16, 16], [200, 0, 0], atol=6)


def test_picture_folders(tmp_path: Path) -> None:
    write_frames_folder(tmp_path / "p", VIDEO, kind="png", fps=5, bits=16)
    names = sorted(file.name for file in (tmp_path / "p").iterdir())
    assert names == [f"frame_{index:06d}.png" for index in range(4)]
    picture = cv2.imread(str(tmp_path / "p" / names[2]), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(picture, VIDEO[2])
    write_frames_folder(tmp_path / "f", VIDEO, kind="fits", fps=5, start_utc=START, bits=16)
    with fits.open(tmp_path / "f" / "frame_000003.fits") as hdus:
        hdus.verify("exception")
        assert hdus[0].header["DATE-OBS"] == "2024-05-01T20:15:00.850000"
        np.testing.assert_array_equal(hdus[0].data, VIDEO[3])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.gif", {}, "suffix '.gif'"),
        ("a.mp4", {"bits": 16}, "16 bits in H.264"),
        ("a.mkv", {"bits": 0}, "floating point"),
        ("a.ser", {"bits": 0}, "floating point"),
        ("a.mkv", {"codec": "mpeg1"}, "'ffv1' or 'h264'"),
        ("a.ser", {"codec": "ffv1"}, "leave it out"),
        ("a.fits", {"codec": "ffv1"}, "leave it out"),
        ("a.mkv", {"bits": 12}, "--bits 12"),
        ("a.mkv", {"fps": 0.0}, "--fps 0"),
        ("a.mp4", {"crf": 52}, "--crf 52"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, name: str, options: dict[str, object], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        write_recording(tmp_path / name, VIDEO, **({"fps": 5.0} | options))
    assert list(tmp_path.iterdir()) == []


def test_refused_folders(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="png, tiff, jpeg, fits"):
        write_frames_folder(tmp_path, VIDEO, kind="gif", fps=5)
    with pytest.raises(SettingsError, match="16 bits in jpeg"):
        write_frames_folder(tmp_path, VIDEO, kind="jpeg", fps=5, bits=16)


@pytest.mark.parametrize("name", ["a.mkv", "a.fits", "a.fits.fz", "a.ser"])
def test_no_frames_and_mixed_sizes(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no frames"):
        write_recording(tmp_path / name, [], fps=5)
    with pytest.raises(ValueError, match="frame 1 has shape"):
        write_recording(tmp_path / name, [VIDEO[0], VIDEO[0, :8]], fps=5)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.fits", "a.fits.fz", "a.ser"])
def test_a_place_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot make this folder"):
        write_recording(tmp_path / "file" / name, VIDEO, fps=5)
    (tmp_path / name).mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_recording(tmp_path / name, VIDEO, fps=5)
