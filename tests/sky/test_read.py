"""Every format is written and read back; every unusable input gives one clear line."""

import gzip
import math
import os
import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from warte.core.errors import InputError, SettingsError, WarteError
from warte.sky.read import Recording, read
from warte.sky.read.fits import header_utc
from warte.sky.read.ser import HEADER
from warte.sky.write import write_frames_folder, write_recording

START = np.datetime64("2024-05-01T20:15:00.250000")
SHAPE = (5, 18, 26)


def picture(bits: int = 8, shape: tuple[int, ...] = SHAPE) -> NDArray:
    rng = np.random.default_rng(7)
    if bits == 0:
        return rng.normal(100, 30, shape).astype(np.float32)
    return rng.integers(0, 2**bits, shape).astype(np.uint8 if bits == 8 else np.uint16)


def pixels(recording: Recording) -> NDArray[np.float32]:
    return np.stack([frame.pixels for frame in recording.frames()])


def error_of(path: Path, **given_: float | str) -> str:
    with pytest.raises(WarteError) as caught:
        recording = read(path, **given_)
        list(recording.frames())
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".fits", ".fits.fz", ".ser"])
def test_lossless_files_come_back_exactly(tmp_path: Path, suffix: str, bits: int) -> None:
    video = picture(bits)
    write_recording(tmp_path / f"a{suffix}", video, fps=12.5, start_utc=START, bits=bits)
    recording = read(tmp_path / f"a{suffix}")
    assert (recording.width, recording.height, recording.fps) == (26, 18, 12.5)
    assert recording.levels == 1.0
    assert recording.saturation == 2**bits - 1
    frames = list(recording.frames())
    np.testing.assert_array_equal([frame.pixels for frame in frames], video)
    assert frames[0].pixels.dtype == np.float32
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.08, 0.16, 0.24, 0.32])
    assert [frame.utc for frame in frames] == [
        START + np.timedelta64(80_000 * index, "us") for index in range(5)
    ]
    assert recording.frame_count == 5
    assert recording.warnings == []
    np.testing.assert_array_equal([f.pixels for f in recording.frames(3)], video[3:])
    assert [frame.index for frame in recording.frames(3)] == [3, 4]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_h264_keeps_grey_levels(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    ramp = np.linspace(0, 255, size[1]).astype(np.uint8)
    video = np.broadcast_to(ramp, (5, *size))
    write_recording(tmp_path / f"a{suffix}", video, fps=25, start_utc=START, crf=1)
    recording = read(tmp_path / f"a{suffix}")
    assert recording.levels == 1.0
    assert np.abs(pixels(recording) - video).max() <= 2
    assert recording.start_utc == START


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("png", 8), ("png", 16), ("tiff", 8), ("tiff", 16), ("tiff", 0), ("fits", 16), ("fits", 0)],
)
def test_picture_folders_come_back_exactly(tmp_path: Path, kind: str, bits: int) -> None:
    video = picture(bits)
    write_frames_folder(tmp_path / "a", video, kind=kind, fps=4, start_utc=START, bits=bits)
    recording = read(tmp_path / "a", fps=None if kind == "fits" else 4, start=str(START))
    np.testing.assert_array_equal(pixels(recording), video)
    assert recording.levels == (1.0 if bits else None)
    assert recording.saturation == (2**bits - 1 if bits else None)
    assert [f.utc for f in recording.frames(4)] == [START + np.timedelta64(1, "s")]


def test_jpeg_folder_is_close(tmp_path: Path) -> None:
    video = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8), (3, 24, 32))
    write_frames_folder(tmp_path / "a", video, kind="jpeg", fps=4)
    assert np.abs(pixels(read(tmp_path / "a", fps=4)) - video).max() <= 4


@pytest.mark.parametrize("name", ["a.mkv", "a.fits", "a.fits.fz", "a.ser", "png", "tiff", "fits"])
def test_colour_becomes_luminance(tmp_path: Path, name: str) -> None:
    video = picture(shape=(*SHAPE, 3))
    if "." in name:
        write_recording(tmp_path / name, video, fps=4)
    else:
        write_frames_folder(tmp_path / name, video, kind=name, fps=4)
    expected = video @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(pixels(read(tmp_path / name, fps=4)), expected, atol=1e-4)


def write_stream(path: Path, frames: list[av.VideoFrame], codec: str = "ffv1") -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].height, frames[0].width
        stream.pix_fmt = frames[0].format.name
        stream.codec_context.color_range = frames[0].color_range
        for index, frame in enumerate(frames):
            frame.pts = index if frame.pts is None else frame.pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def luma_frame(values: NDArray, pixel_format: str, color_range: int) -> av.VideoFrame:
    frame = av.VideoFrame(values.shape[1], values.shape[0], pixel_format)
    for number, plane in enumerate(frame.planes):
        rows = np.frombuffer(plane, values.dtype).reshape(-1, plane.line_size // values.itemsize)
        rows[:] = values.max() // 2
        if number == 0:
            rows[: values.shape[0], : values.shape[1]] = values
    frame.color_range = color_range
    return frame


def test_studio_range_is_stretched_as_a_player_does(tmp_path: Path) -> None:
    values = np.tile(np.array([16, 126, 235, 240], np.uint8), (16, 4))
    write_stream(tmp_path / "a.mkv", [luma_frame(values, "yuv420p", 1) for _ in range(3)])
    recording = read(tmp_path / "a.mkv")
    assert recording.levels == pytest.approx(255 / 219)
    # Against FFmpeg's own conversion, which rounds and clips.
    with av.open(str(tmp_path / "a.mkv")) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="gray")
    np.testing.assert_allclose(np.clip(pixels(recording)[0], 0, 255), shown, atol=1)
    assert pixels(recording)[0, 0, :3] == pytest.approx([0, 128.08, 255], abs=0.01)


def test_ten_bit_video_keeps_its_units(tmp_path: Path) -> None:
    values = np.tile(np.array([0, 64, 512, 1023], np.uint16), (16, 4))
    write_stream(tmp_path / "full.mkv", [luma_frame(values, "yuv420p10le", 2) for _ in range(3)])
    recording = read(tmp_path / "full.mkv")
    assert recording.saturation == 1023
    np.testing.assert_array_equal(pixels(recording)[0], values)
    write_stream(tmp_path / "studio.mkv", [luma_frame(values, "yuv420p10le", 1) for _ in range(3)])
    studio = pixels(read(tmp_path / "studio.mkv"))[0]
    np.testing.assert_allclose(studio, (values - 64.0) * 1023 / 876, rtol=1e-5)


def test_variable_frame_rate_follows_the_time_stamps(tmp_path: Path) -> None:
    stamps = [0, 1, 2, 6, 7, 20]
    frames = []
    for stamp in stamps:
        frame = av.VideoFrame.from_ndarray(picture(shape=(16, 24)), format="gray")
        frame.pts = stamp
        frames.append(frame)
    write_stream(tmp_path / "a.mkv", frames)
    recording = read(tmp_path / "a.mkv")
    times = [frame.time_s for frame in recording.frames()]
    assert times == pytest.approx([stamp / 25 for stamp in stamps], abs=2e-3)
    even = [frame.time_s for frame in read(tmp_path / "a.mkv", fps=10).frames()]
    assert even == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_given_start_and_rate_replace_the_files(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.ser", picture(), fps=25, start_utc=START)
    frames = list(read(tmp_path / "a.ser", fps=2, start="2020-01-01T01:00:00+02:00").frames())
    assert frames[0].utc == np.datetime64("2019-12-31T23:00:00")
    assert frames[1].utc == np.datetime64("2019-12-31T23:00:00.500000")
    frames = list(read(tmp_path / "a.ser", start="2020-01-01T00:00:00Z").frames())
    assert frames[2].utc == np.datetime64("2020-01-01T00:00:00.080000")


@pytest.mark.parametrize("fps", [0.0, -1.0, math.nan, math.inf])
def test_impossible_rate(tmp_path: Path, fps: float) -> None:
    with pytest.raises(SettingsError, match="--fps"):
        read(tmp_path, fps=fps)


@pytest.mark.parametrize("start", ["yesterday", "2024-05-01", "2024-05-01T25:00:00", ""])
def test_impossible_start(tmp_path: Path, start: str) -> None:
    with pytest.raises(SettingsError, match="--start"):
        read(tmp_path, start=start)


# --- SER -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    bits=st.sampled_from([8, 16]),
    colour=st.booleans(),
    fps=st.floats(0.01, 1000),
    microseconds=st.integers(-(10**15), 4 * 10**15),
)
def test_ser_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    bits: int,
    colour: bool,
    fps: float,
    microseconds: int,
) -> None:
    count, height, width = (data.draw(st.integers(low, 6)) for low in (2, 1, 1))
    shape = (count, height, width, 3) if colour else (count, height, width)
    video = data.draw(hnp.arrays(np.uint8 if bits == 8 else np.uint16, shape))
    start = np.datetime64(microseconds, "us")
    path = tmp_path_factory.mktemp("ser") / "a.ser"
    write_recording(path, video, fps=fps, start_utc=start, bits=bits)
    recording = read(path)
    weights = np.array([0.299, 0.587, 0.114])
    expected = video @ weights if colour else video
    np.testing.assert_allclose(pixels(recording), expected, rtol=1e-6, atol=1e-3)
    assert recording.start_utc == start
    assert recording.fps == pytest.approx(fps, rel=2e-3)
    times = [frame.time_s for frame in recording.frames()]
    assert times == pytest.approx(np.arange(count) / fps, abs=1e-6)


def ser_file(path: Path, video: NDArray, **fields: int) -> Path:
    """A SER file written here by the format's description, not by the writer under test."""
    use = {"colour": 0, "flag": 0, "bits": 16, "count": len(video), "order": 0} | fields
    order = ">" if use["order"] else "<"
    header = struct.pack("<14s", b"LUCAM-RECORDER")
    height, width = video.shape[1:3]
    numbers = (0, use["colour"], use["flag"], width, height, use["bits"], use["count"])
    header += struct.pack("<7i", *numbers)
    header += b"observer".ljust(40) + b"instrument".ljust(40) + b"telescope".ljust(40)
    header += struct.pack("<2q", 0, 0)
    assert len(header) == 178
    path.write_bytes(header + video.astype(f"{order}u2").tobytes())
    return path


@pytest.mark.parametrize(("flag", "order"), [(0, 0), (1, 0), (1, 1)])
def test_ser_byte_order_flag_may_mean_either(tmp_path: Path, flag: int, order: int) -> None:
    rng = np.random.default_rng(3)
    video = rng.normal(3000, 40, SHAPE).astype(np.uint16)
    path = ser_file(tmp_path / "a.ser", video, flag=flag, order=order)
    np.testing.assert_array_equal(pixels(read(path, fps=5)), video)


def test_ser_mosaic_and_depth(tmp_path: Path) -> None:
    video = picture(16) >> 4
    recording = read(ser_file(tmp_path / "a.ser", video, colour=8, bits=12), fps=5)
    np.testing.assert_array_equal(pixels(recording), video)
    assert recording.saturation == 4095
    assert "RGGB" in recording.warnings[0]


def test_ser_bgr_is_luminance(tmp_path: Path) -> None:
    video = picture(16, (*SHAPE, 3))
    path = ser_file(tmp_path / "a.ser", video, colour=101)
    expected = video @ np.array([0.114, 0.587, 0.299])
    np.testing.assert_allclose(pixels(read(path, fps=5)), expected, rtol=1e-5)


def test_ser_of_a_stopped_program(tmp_path: Path) -> None:
    recording = read(ser_file(tmp_path / "a.ser", picture(16), count=0), fps=5)
    assert len(pixels(recording)) == 5
    assert "number of frames" in recording.warnings[0]


def test_ser_cut_short(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.ser", picture(16), fps=5, start_utc=START, bits=16)
    data = (tmp_path / "a.ser").read_bytes()
    frame = 18 * 26 * 2
    (tmp_path / "b.ser").write_bytes(data[: HEADER.size + 3 * frame + 50])
    recording = read(tmp_path / "b.ser", fps=5)
    np.testing.assert_array_equal(pixels(recording), picture(16)[:3])
    assert recording.warnings == ["breaks off after frame 2: the header promises 5 frames"]
    assert "--fps" in error_of(tmp_path / "b.ser")
    (tmp_path / "c.ser").write_bytes(data[: HEADER.size + 50])
    assert "no frame" in error_of(tmp_path / "c.ser", fps=5)
    (tmp_path / "d.ser").write_bytes(data[:100])
    assert "header" in error_of(tmp_path / "d.ser", fps=5)


def test_ser_stamps_that_stand_still_are_spread(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.ser", picture(), fps=2, start_utc=START)
    data = bytearray((tmp_path / "a.ser").read_bytes())
    data[-16:-8] = data[-24:-16]
    (tmp_path / "a.ser").write_bytes(data)
    recording = read(tmp_path / "a.ser")
    assert [f.time_s for f in recording.frames()] == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert "evenly" in recording.warnings[0]


# --- FITS ----------------------------------------------------------------------------------


def fits_cube(path: Path, cube: NDArray, **cards: object) -> Path:
    header = fits.Header([(key.replace("_", "-"), value) for key, value in cards.items()])
    fits.writeto(path, cube, header)
    return path


@pytest.mark.parametrize(
    ("cards", "fps"),
    [({"FPS": 8.0}, 8), ({"CADENCE": 0.2}, 5), ({"KCT": 0.5}, 2), ({"EXPTIME": "2,0000"}, 0.5)],
)
def test_fits_rate_keywords(tmp_path: Path, cards: dict[str, object], fps: float) -> None:
    recording = read(fits_cube(tmp_path / "a.fits", picture(0), **cards))
    assert recording.fps == pytest.approx(fps)
    assert bool(recording.warnings) == ("EXPTIME" in cards)
    assert recording.levels is None


def test_fits_without_rate_asks_for_it(tmp_path: Path) -> None:
    path = fits_cube(tmp_path / "a.fits", picture(0))
    assert "--fps" in error_of(path)
    assert read(path, fps=3).fps == 3


def test_fits_scaled_and_in_an_extension(tmp_path: Path) -> None:
    cube = picture(16).astype(np.int16)
    hdu = fits.ImageHDU(cube, fits.Header([("FPS", 5.0), ("BAYERPAT", "RGGB"), ("SATURATE", 99)]))
    hdu.header["BSCALE"], hdu.header["BZERO"] = 0.5, 10.0
    data = fits.HDUList([fits.PrimaryHDU(), hdu])
    data[1].data = cube
    data[1].header["BSCALE"], data[1].header["BZERO"] = 0.5, 10.0
    data.writeto(tmp_path / "a.fits")
    recording = read(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as hdus:
        np.testing.assert_allclose(pixels(recording), hdus[1].data)
    assert recording.levels == 0.5
    assert recording.saturation == 99
    assert "RGGB" in recording.warnings[0]


def test_fits_gzipped_streams(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.fits", picture(16), fps=5, bits=16)
    data = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(data))
    np.testing.assert_array_equal(pixels(read(tmp_path / "a.fits.gz")), picture(16))


@pytest.mark.parametrize("suffix", [".fits", ".fits.fz", ".fits.gz"])
def test_fits_cut_short(tmp_path: Path, suffix: str) -> None:
    video = picture(16, (6, 60, 80))
    path = tmp_path / f"a{suffix}"
    write_recording(path.with_name("a.fits.fz" if "fz" in suffix else "a.fits"), video, fps=5,
                    bits=16)  # fmt: skip
    if "gz" in suffix:
        path.write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    recording = read(path)
    read_back = pixels(recording)
    assert 2 <= len(read_back) < 6
    np.testing.assert_array_equal(read_back, video[: len(read_back)])
    assert recording.frame_count == len(read_back)
    assert recording.warnings[0].startswith(f"breaks off after frame {len(read_back) - 1}")
    list(recording.frames())
    assert len(recording.warnings) == 1
    path.write_bytes(data[:2000])
    error_of(path)


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"DATE-OBS": "2024-05-01T20:15:00.1234567"}, "2024-05-01T20:15:00.123456"),
        ({"DATE-OBS": "2024-05-01", "TIME-OBS": "20:15:00.5"}, "2024-05-01T20:15:00.500000"),
        ({"DATE-OBS": "26/07/102", "TIME-OBS": "19:36:37"}, "2002-07-26T19:36:37"),
        ({"DATE-OBS": "2024-05-01", "UT": "20:15:00"}, "2024-05-01T20:15:00"),
        ({"DATE-BEG": "2024-05-01T20:15:00Z"}, "2024-05-01T20:15:00"),
        ({"MJD-OBS": 60431.84375}, "2024-05-01T20:15:00"),
        ({"JD": "2460432.34375"}, "2024-05-01T20:15:00"),
        # TAI was 37 s ahead of UTC (IERS Bulletin C 52 and later).
        ({"DATE-OBS": "2024-05-01T20:15:37", "TIMESYS": "TAI"}, "2024-05-01T20:15:00"),
        ({"DATE-OBS": "2024-05-01"}, None),
        ({"DATE-OBS": "unknown"}, None),
        ({}, None),
    ],
)
def test_fits_start(cards: dict[str, object], expected: str | None) -> None:
    found = header_utc(fits.Header(list(cards.items())))
    assert found == (None if expected is None else np.datetime64(expected, "us"))


def test_fits_folder_is_sorted_by_time(tmp_path: Path) -> None:
    video = picture(16)
    for place, index in enumerate([3, 0, 4, 1, 2]):
        utc = str(START + np.timedelta64(2 * index, "s"))
        fits_cube(tmp_path / f"{place}.fit", video[index], DATE_OBS=utc, EXPTIME=0.5)
    recording = read(tmp_path)
    np.testing.assert_array_equal(pixels(recording), video)
    assert recording.fps == pytest.approx(0.5)
    assert recording.start_utc == START


def test_fits_folder_without_times_is_sorted_by_name(tmp_path: Path) -> None:
    video = picture(16, (12, 6, 8))
    for index, frame in enumerate(video):
        fits_cube(tmp_path / f"x{index}.fits", frame)
    np.testing.assert_array_equal(pixels(read(tmp_path, fps=1)), video)
    assert "--fps" in error_of(tmp_path)


def test_nan_pixels_become_the_median(tmp_path: Path) -> None:
    cube = picture(0)
    cube[1, 2, 3], cube[1, 4, 5], cube[3, 0, 0] = np.nan, np.inf, -np.inf
    recording = read(fits_cube(tmp_path / "a.fits", cube, FPS=5.0))
    clean = pixels(recording)
    good = cube[1][np.isfinite(cube[1])]
    assert clean[1, 2, 3] == clean[1, 4, 5] == np.median(good)
    assert np.isfinite(clean).all()
    assert "3 pixels in 2 frames" in recording.warnings[0]
    cube[4] = np.nan
    fits_cube(tmp_path / "b.fits", cube, FPS=5.0)
    assert "frame 4" in error_of(tmp_path / "b.fits")


# --- unusable input ------------------------------------------------------------------------


def test_missing_and_empty(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "none.mp4")
    (tmp_path / "empty.mp4").touch()
    assert "is empty" in error_of(tmp_path / "empty.mp4")
    assert "frames" not in error_of(tmp_path / "empty.mp4").split(";")[0]
    (tmp_path / "folder").mkdir()
    assert "folder is empty" in error_of(tmp_path / "folder")


def test_not_a_video(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, data in [
        ("a.mp4", b"this is no video at all\n" * 50),
        ("a.txt", b"this is text\n" * 50),
        ("b.avi", bytes(range(256)) * 20),
        ("c.fits", b"SIMPLE  = nonsense" * 300),
        ("d.fits", b"nonsense" * 300),
        ("e.ser", b"nonsense" * 300),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:5,\nhttp://localhost/a.ts\n#EXT-X-ENDLIST\n"),
    ]:
        (tmp_path / name).write_bytes(data)
        assert name in error_of(tmp_path / name, fps=5)
    assert capfd.readouterr() == ("", "")


def test_sound_without_pictures(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    assert "without a video stream" in error_of(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.fits", "a.ser"])
def test_one_frame(tmp_path: Path, name: str) -> None:
    write_recording(tmp_path / name, picture()[:1], fps=5, start_utc=START)
    assert "at least two" in error_of(tmp_path / name, fps=5)


def test_one_picture(tmp_path: Path) -> None:
    write_frames_folder(tmp_path / "a", picture()[:1], kind="png", fps=5)
    assert "one picture" in error_of(tmp_path / "a", fps=5)
    assert "single PNG" in error_of(tmp_path / "a" / "frame_000000.png", fps=5)
    fits_cube(tmp_path / "a.fits", picture()[0], EXPTIME=1.0)
    assert "one frame" in error_of(tmp_path / "a.fits")


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_video_cut_short(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    video = picture(shape=(40, 48, 64))
    write_recording(tmp_path / f"a{suffix}", video, fps=25)
    data = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(data[: len(data) // 2])
    recording = read(tmp_path / f"b{suffix}")
    read_back = pixels(recording)
    assert 15 <= len(read_back) <= 21
    np.testing.assert_array_equal(read_back, video[: len(read_back)])
    assert recording.warnings[0].startswith(f"breaks off after frame {len(read_back) - 1}: ")
    (tmp_path / f"c{suffix}").write_bytes(data[:900])
    error_of(tmp_path / f"c{suffix}")
    assert capfd.readouterr() == ("", "")


def test_mp4_cut_short(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.mp4", picture(shape=(40, 48, 64)), fps=25)
    data = (tmp_path / "a.mp4").read_bytes()
    # The index stands at the end: without it nothing can be found.
    (tmp_path / "b.mp4").write_bytes(data[: len(data) // 2])
    assert "cut short" in error_of(tmp_path / "b.mp4")
    # With the index in front, as cameras for the net write it, half of it is used.
    with av.open(str(tmp_path / "a.mp4")) as old:
        options = {"movflags": "faststart"}
        with av.open(str(tmp_path / "c.mp4"), "w", options=options) as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)
    data = (tmp_path / "c.mp4").read_bytes()
    (tmp_path / "c.mp4").write_bytes(data[: len(data) // 2])
    recording = read(tmp_path / "c.mp4")
    assert 5 <= len(pixels(recording)) <= 25
    assert recording.warnings[0].startswith("breaks off after frame ")


def test_damaged_picture_ends_the_recording(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind in ("png", "tiff", "jpeg", "fits"):
        write_frames_folder(tmp_path / kind, picture(), kind=kind, fps=5)
        file = sorted((tmp_path / kind).iterdir())[3]
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
        recording = read(tmp_path / kind, fps=5)
        assert len(pixels(recording)) == 3
        assert recording.warnings[0].startswith("breaks off after frame 2: frame_000003")
        file.write_bytes(b"")
        assert len(pixels(read(tmp_path / kind, fps=5))) == 3
        first = sorted((tmp_path / kind).iterdir())[0]
        first.write_bytes(b"\x89PNG broken")
        error_of(tmp_path / kind, fps=5)
    assert capfd.readouterr() == ("", "")


def test_changing_size(tmp_path: Path) -> None:
    write_frames_folder(tmp_path / "a", picture(), kind="png", fps=5)
    cv2.imwrite(str(tmp_path / "a" / "frame_000003.png"), np.zeros((9, 9), np.uint8))
    assert "frame 3 is 9x9 but frame 0 is 26x18" in error_of(tmp_path / "a", fps=5)
    # Two H.264 streams, one after the other.
    parts = b""
    for size in ((32, 48), (48, 64)):
        write_recording(tmp_path / "v.mp4", picture(shape=(6, *size)), fps=25)
        with (
            av.open(str(tmp_path / "v.mp4")) as old,
            av.open(str(tmp_path / "v.h264"), "w", format="h264") as new,
        ):
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)
        parts += (tmp_path / "v.h264").read_bytes()
    (tmp_path / "both.h264").write_bytes(parts)
    assert "frame 6 is 64x48 but frame 0 is 48x32" in error_of(tmp_path / "both.h264")


def test_folders_without_use(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("clear sky")
    assert "no pictures" in error_of(tmp_path, fps=5)
    cv2.imwrite(str(tmp_path / "a.png"), picture()[0])
    cv2.imwrite(str(tmp_path / "b.png"), picture()[0])
    assert len(pixels(read(tmp_path, fps=5))) == 2
    cv2.imwrite(str(tmp_path / "c.tif"), picture()[0])
    assert "2 PNG, 1 TIFF" in error_of(tmp_path, fps=5)


def test_picture_folder_needs_a_rate(tmp_path: Path) -> None:
    write_frames_folder(tmp_path / "a", picture(), kind="png", fps=5)
    assert "--fps" in error_of(tmp_path / "a")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recording(tmp_path / "a.mkv", picture(), fps=5)
    if os.geteuid() != 0:
        (tmp_path / "a.mkv").chmod(0)
    else:  # root may read everything

        def refuse(*args: object, **kwargs: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    assert "no permission" in error_of(tmp_path / "a.mkv")


def test_constant_and_saturated_pictures_are_read(tmp_path: Path) -> None:
    for value in (0, 255):
        write_recording(tmp_path / "a.mkv", np.full(SHAPE, value, np.uint8), fps=5)
        assert (pixels(read(tmp_path / "a.mkv")) == value).all()


# --- real files ----------------------------------------------------------------------------


@pytest.fixture
def sky_data() -> Path:
    folder = os.environ.get("WARTE_DATA")
    if folder is None:
        pytest.skip("WARTE_DATA is not set: the real files are not here")
    return Path(folder) / "sky"


def test_real_video(sky_data: Path) -> None:
    recording = read(sky_data / "real_video_a.mp4")
    assert (recording.width, recording.height, recording.frame_count) == (854, 480, 960)
    assert recording.fps == pytest.approx(30000 / 1001)
    times = [frame.time_s for frame in recording.frames()]
    assert times == pytest.approx(np.arange(960) * 1001 / 30000)
    assert recording.warnings == []


@pytest.mark.parametrize(
    ("name", "shape", "start"),
    [
        ("ystar_long.fits", (512, 512), "2002-07-26T19:36:37"),
        ("lco_bi327715_3streaks.fits", (400, 400), "2020-11-20T01:04:29.222"),
        ("lna_occ_nostreak.fits", (512, 512), "2021-11-25T06:20:07.053"),
        ("sdss_frame-i-008108_nostreak.fits", (400, 400), None),
    ],
)
def test_real_fits(
    sky_data: Path, tmp_path: Path, name: str, shape: tuple[int, int], start: str | None
) -> None:
    for copy in ("a", "b"):
        (tmp_path / f"{copy}.fits").symlink_to((sky_data / name).resolve())
    recording = read(tmp_path, fps=1)
    frame = next(iter(recording.frames()))
    assert frame.pixels.shape == shape
    assert frame.pixels.std() > 0
    assert frame.utc == (None if start is None else np.datetime64(start, "us"))
    with pytest.raises(InputError, match="one frame"):
        read(sky_data / name)


def test_real_tiffs(sky_data: Path, tmp_path: Path) -> None:
    for file in sky_data.glob("esa_*.tiff"):
        (tmp_path / file.name).symlink_to(file.resolve())
    recording = read(tmp_path, fps=1)
    assert pixels(recording).shape == (4, 768, 1024)
    assert recording.saturation == 65535
