"""`warte sky` from end to end, on tiny recordings."""

import errno
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from warte.cli import main
from warte.sky import presets
from warte.sky.read import read
from warte.sky.simulate import CameraSettings, Satellite, SimulateSettings, SkySettings, simulate
from warte.sky.tables import parse_utc, read_tracks, write_tracks
from warte.sky.write import write_frames_folder, write_recording

# The program, which says on stdout when the search itself has begun.
TALKATIVE = """
import sys
import warte.sky.find as finding

prepare = finding.prepare_window

def talk(*arguments):
    print("searching", flush=True)
    return prepare(*arguments)

finding.prepare_window = talk
from warte.cli import main

sys.exit(main())
"""
SMALL = ["--size", "64x48", "--frames", "6"]
START = "2024-08-12T22:00:00.000000Z"


def _scene() -> SimulateSettings:
    """One satellite that nobody could miss."""
    satellite = Satellite(frame=20, x=80, y=60, vx=2.5, vy=1.0, snr=25)
    sky = SkySettings(stars_per_mpx=6000, drift_x=0.03)
    return SimulateSettings(frames=40, width=160, height=120, sky=sky, movers=(satellite,))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.mkv and its truth."""
    folder = tmp_path_factory.mktemp("clip")
    scene = _scene()
    frames, truth = simulate(scene, np.random.default_rng(3))
    write_recording(folder / "clip.mkv", frames, fps=scene.fps, start_utc=parse_utc(START))
    write_tracks(truth, folder)
    return folder


def _last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on stderr, with nothing on stdout."""
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    return lines[0]


@pytest.mark.parametrize("name", ["simulate", "inject", "find", "evaluate", "train", "demo"])
def test_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sky", name, "--help"]) == 0
    assert f"Example: warte sky {name} " in capsys.readouterr().out


# simulate ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "name", "levels"),
    [
        ([], "clip.mkv", 255),
        (["--bits", "16"], "clip.mkv", 65535),
        (["--format", "mp4"], "clip.mp4", 255),
        (["--format", "mov"], "clip.mov", 255),
        (["--format", "avi", "--h264-crf", "30"], "clip.avi", 255),
        (["--format", "fits"], "clip.fits", 255),
        (["--format", "fits.fz", "--bits", "16"], "clip.fits.fz", 65535),
        (["--format", "ser", "--bits", "16"], "clip.ser", 65535),
        (["--format", "png", "--bits", "16"], "clip", 65535),
        (["--format", "tiff"], "clip", 255),
        (["--format", "jpeg"], "clip", 255),
        (["--format", "fits-folder"], "clip", 255),
    ],
)
def test_what_simulate_writes_can_be_read(
    flags: list[str], name: str, levels: int, tmp_path: Path
) -> None:
    out = tmp_path / "made"
    assert main(["sky", "simulate", "--out", str(out), "--seed", "5", *SMALL, *flags]) == 0
    recording = read(out / name, fps=25.0)
    frames = [frame.pixels for frame in recording.frames()]
    assert (recording.width, recording.height, len(frames)) == (64, 48, 6)
    assert recording.saturation == levels
    assert 0.02 * levels < float(np.median(frames)) < 0.5 * levels
    truth = read_tracks(out)
    assert "satellite" in set(truth.tracks["kind"])
    run = json.loads((out / "run.json").read_text())
    assert (run["seed"], run["frames"], run["recording"]) == (5, 6, name)
    assert run["command"][:3] == ["warte", *sys.argv[1:3]]
    assert {"simulate", "write"} <= set(run["seconds"])


@pytest.mark.parametrize(
    ("preset", "kinds"),
    [
        ("demo", {"satellite", "aircraft", "meteor"}),
        ("faint", {"satellite"}),
        ("empty", set()),
        ("codec", {"satellite"}),
    ],
)
def test_presets(preset: str, kinds: set[str], tmp_path: Path) -> None:
    out = tmp_path / "made"
    flags = ["--preset", preset, "--size", "96x72", "--frames", "60", "--quiet"]
    assert main(["sky", "simulate", "--out", str(out), *flags]) == 0
    assert kinds <= set(read_tracks(out).tracks["kind"])
    assert (out / ("clip.mp4" if preset == "codec" else "clip.mkv")).is_file()


def test_snr_and_speed_are_those_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    flags = ["--preset", "faint", "--snr", "1.5", "--speed", "2", "--frames", "20", "--json"]
    assert main(["sky", "simulate", "--out", str(out), *flags]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recording"] == str(out / "clip.mkv")
    (track,) = told["tracks"]
    assert track["speed_px_s"] == pytest.approx(2 * 25)
    assert track["snr_frame"] == pytest.approx(1.5, rel=0.01)


def test_the_same_seed_makes_the_same_clip(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["sky", "simulate", "--out", str(tmp_path / name), "--seed", seed, *SMALL]) == 0
    a, b, c = (
        np.stack([frame.pixels for frame in read(tmp_path / name / "clip.mkv").frames()])
        for name in "abc"
    )
    assert (a == b).all() and (a != c).any()
    tables = [(tmp_path / name / "observations.csv").read_bytes() for name in "ab"]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--size", "640"], "error: --size '640' is not a size; give WIDTHxHEIGHT, as 640x480"),
        (["--snr", "2"], "error: --snr is for --preset faint and kinds, not demo; leave it out"),
        (["--speed", "2"], "error: --speed is for --preset faint, not demo; leave it out"),
        (
            ["--format", "ser", "--h264-crf", "20"],
            "error: --h264-crf does not go with --format ser",
        ),
        (["--format", "mp4", "--bits", "16"], "error: --bits 16 does not fit into H.264 or JPEG"),
        (["--frames", "0"], "error: Invalid value for '--frames': "),
        (["--frames", "100000000"], "error: Invalid value for '--frames': "),
        (["--preset", "faint", "--snr", "nan"], "error: --snr nan is not a brightness; give a"),
        (["--preset", "kinds", "--snr", "-1"], "error: --snr -1 is not a brightness; give a"),
        (["--preset", "faint", "--speed", "-3"], "error: --speed -3 is not a speed; give pixels"),
        (["--size", "2x2"], "error: width is 2; allowed is 8 to 20000"),
        (["--preset", "nonsense"], "error: Invalid value for '--preset': "),
    ],
)
def test_simulate_says_what_is_wrong(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sky", "simulate", "--out", str(tmp_path / "made"), *flags]) == 2
    assert _last_line(capsys).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_results_are_replaced_with_force_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    command = ["sky", "simulate", "--out", str(out), *SMALL]
    assert main(command) == 0
    before = (out / "run.json").read_text()
    capsys.readouterr()
    assert main(command) == 2
    assert _last_line(capsys).endswith("name another folder or give --force")
    assert (out / "run.json").read_text() == before
    assert main([*command, "--force", "--seed", "8"]) == 0
    assert json.loads((out / "run.json").read_text())["seed"] == 8


# inject -----------------------------------------------------------------------------------------


def _inject(recording: Path, out: Path, *flags: str) -> int:
    return main(["sky", "inject", str(recording), "--out", str(out), *flags])


def test_inject_adds_what_the_truth_says(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "injected"
    flags = ["--count", "3", "--snr", "8", "--snr", "30", "--speed-range", "0.5-2", "--seed", "4"]
    assert _inject(clip / "clip.mkv", out, *flags) == 0
    truth = read_tracks(out)
    assert len(truth.tracks) == 3
    assert truth.tracks["snr_frame"].to_numpy() == pytest.approx([8, 30, 8], rel=0.3)
    assert truth.tracks["speed_px_s"].between(0.5 * 25, 2 * 25).all()
    before = np.stack([frame.pixels for frame in read(clip / "clip.mkv").frames()])
    lit = read(out / "clip.mkv")
    added = np.stack([frame.pixels for frame in lit.frames()]) - before
    assert lit.start_utc == read(clip / "clip.mkv").start_utc
    assert (added >= 0).all()
    # The light that was added is that of the truth, to 10 %.
    assert added.sum() == pytest.approx(truth.observations["flux"].sum(), rel=0.1)
    run = json.loads((out / "run.json").read_text())
    assert run["inputs"][0]["name"] == "clip.mkv"
    assert run["frames"] == 40


@pytest.mark.parametrize(("bits", "name"), [(16, "clip.mkv"), (0, "clip.fits")])
def test_inject_keeps_the_depth(bits: int, name: str, tmp_path: Path) -> None:
    scene = replace(_scene(), frames=8, movers=())
    scene = replace(scene, camera=CameraSettings(bits=bits, bias=400.0, gain=20.0 if bits else 0.2))
    frames, _ = simulate(scene, np.random.default_rng(1))
    write_recording(tmp_path / "in.fits", frames, fps=25.0, bits=bits)
    assert _inject(tmp_path / "in.fits", tmp_path / "out", "--speed-range", "0.3-1", "--quiet") == 0
    lit = read(tmp_path / "out" / name)
    assert lit.levels == (1.0 if bits else None)
    first = next(iter(lit.frames())).pixels
    assert (first >= frames[0].astype(np.float32)).all()
    assert (first > frames[0].astype(np.float32)).any()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--speed-range", "3"], "error: --speed-range '3' is not a range; give LOW-HIGH"),
        (["--speed-range", "3-1"], "error: --speed-range '3-1' is not a range"),
        (["--snr", "0"], "error: --snr 0 is not a brightness; give a number above 0"),
        (["--snr", "3", "--snr", "nan"], "error: --snr nan is not a brightness; give a number"),
        (["--psf-sigma", "nan"], "error: Invalid value for '--psf-sigma': "),
        (["--fps", "-1"], "error: --fps -1.0 is not a rate; give frames per second above 0"),
        (["--start", "noon"], "error: --start 'noon' is not a time; give date and time like"),
    ],
)
def test_inject_says_what_is_wrong(
    flags: list[str],
    message: str,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _inject(clip / "clip.mkv", tmp_path / "out", *flags) == 2
    assert _last_line(capsys).startswith(message)
    assert list(tmp_path.iterdir()) == []


# evaluate ---------------------------------------------------------------------------------------


def test_evaluate_prints_the_tables(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sky", "evaluate", str(clip), str(clip), "--frames", "40"]) == 0
    out = capsys.readouterr().out
    for title in ("Summary", "Recall by per-frame SNR", "68 % intervals", "Kinds (row: true"):
        assert title in out
    assert main(["sky", "evaluate", str(clip), str(clip), "--frames", "40", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["summary"]["matched"], told["summary"]["frames"]) == (1, 40)
    assert told["summary"]["false_per_1000_frames"] == 0.0


def test_evaluate_takes_the_frames_from_the_run(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tracks(read_tracks(clip), tmp_path)
    command = ["sky", "evaluate", str(tmp_path), str(clip), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["frames"] is None
    (tmp_path / "run.json").write_text('{"frames": 123}')
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["frames"] == 123
    (tmp_path / "run.json").write_text("half a fi")
    assert main(command) == 2
    assert "not a readable run.json" in _last_line(capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere", "."], "error: nowhere: no such file or folder; give a folder with tracks.csv"),
        ([".", "."], "error: tracks.csv: no such file; it stands beside the other tables"),
    ],
)
def test_evaluate_says_what_is_missing(
    flags: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sky", "evaluate", *flags]) == 2
    assert _last_line(capsys).startswith(message)


# find -------------------------------------------------------------------------------------------


def _find(recording: Path, out: Path, *flags: str) -> int:
    command = ["sky", "find", str(recording), "--out", str(out), "--device", "cpu", "--quiet"]
    return main([*command, *flags])


def test_find_writes_everything(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "night"
    assert _find(clip / "clip.mkv", out) == 0
    told = capsys.readouterr().out
    assert f"report: {out / 'report.html'}" in told and "tracks: 1 (1 satellite)" in told
    assert sorted(path.name for path in out.iterdir()) == [
        "annotated.mp4", "observations.csv", "preview.png", "report.html", "run.json", "tracks.csv",
    ]  # fmt: skip
    run = json.loads((out / "run.json").read_text())
    assert (run["frames"], run["tracks"], run["device"]) == (40, 1, "cpu")
    assert run["inputs"][0]["name"] == "clip.mkv"
    assert "report" in run["seconds"] and len(run["seconds"]) > 2
    assert main(["sky", "evaluate", str(out), str(clip), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert (summary["matched"], summary["false"], summary["frames"]) == (1, 0, 40)
    assert summary["position_median_px"] < 0.5


def test_find_in_json_with_other_times(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--fps", "50", "--start", "2025-01-01T00:00:00Z", "--no-faint", "--json"]
    assert _find(clip / "clip.mkv", tmp_path / "night", *flags) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["frames"] == 40 and told["warnings"] == []
    (track,) = told["tracks"]
    assert track["start_utc"].startswith("2025-01-01T00:00:00")
    assert track["speed_px_s"] == pytest.approx(np.hypot(2.5, 1.0) * 50, rel=0.05)
    run = json.loads((tmp_path / "night" / "run.json").read_text())
    assert run["settings"]["faint"] is False


def test_find_uses_a_file_up_to_its_break(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (clip / "clip.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: int(0.8 * len(whole))])
    assert _find(tmp_path / "cut.mkv", tmp_path / "night", "--no-faint") == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "breaks off" in line]
    assert len(warnings) == 1
    run = json.loads((tmp_path / "night" / "run.json").read_text())
    assert 25 <= run["frames"] < 40
    assert any("breaks off after frame" in warning for warning in run["warnings"])
    assert "breaks off after frame" in (tmp_path / "night" / "report.html").read_text()


def _noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(40, 3, (count, 48, 64)).clip(0, 255).astype(np.uint8)


def _missing(folder: Path) -> Path:
    return folder / "nowhere.mp4"


def _empty(folder: Path) -> Path:
    (folder / "in.mp4").touch()
    return folder / "in.mp4"


def _no_video(folder: Path) -> Path:
    (folder / "in.mp4").write_text("a letter, not a video\n" * 40)
    return folder / "in.mp4"


def _truncated(folder: Path) -> Path:
    write_recording(folder / "in.mp4", _noise(10), fps=25.0)
    (folder / "in.mp4").write_bytes((folder / "in.mp4").read_bytes()[:400])
    return folder / "in.mp4"


def _one_frame(folder: Path) -> Path:
    write_recording(folder / "in.mkv", _noise(1), fps=25.0)
    return folder / "in.mkv"


def _constant(folder: Path) -> Path:
    write_recording(folder / "in.mkv", np.full((20, 48, 64), 30, np.uint8), fps=25.0)
    return folder / "in.mkv"


def _saturated(folder: Path) -> Path:
    frames = np.full((20, 48, 64), 255, np.uint8)
    frames[:, :10] = _noise(20)[:, :10]
    write_recording(folder / "in.mkv", frames, fps=25.0)
    return folder / "in.mkv"


def _no_pictures(folder: Path) -> Path:
    (folder / "in").mkdir()
    (folder / "in" / "notes.txt").write_text("clear sky")
    return folder / "in"


def _other_size(folder: Path) -> Path:
    write_frames_folder(folder / "in", _noise(6), kind="fits", fps=25.0)
    write_frames_folder(folder / "more", _noise(1)[:, :40], kind="fits", fps=25.0)
    (folder / "more" / "frame_000000.fits").rename(folder / "in" / "frame_000009.fits")
    (folder / "more").rmdir()
    return folder / "in"


def _no_times(folder: Path) -> Path:
    write_frames_folder(folder / "in", _noise(6), kind="png", fps=25.0)
    return folder / "in"


def _only_nan(folder: Path) -> Path:
    frames = _noise(6).astype(np.float32)
    frames[3] = np.nan
    write_recording(folder / "in.fits", frames, fps=25.0, bits=0)
    return folder / "in.fits"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_missing, "no such file or folder; check the name"),
        (_empty, "the file is empty; a recording is one of MP4"),
        (_no_video, "not a video"),
        (_truncated, "not a video, or one cut short before its index"),
        (_one_frame, "holds one frame; a recording has at least two"),
        (_constant, "all pixels are 30; nothing can be found in a constant picture"),
        (_saturated, "more than half of the pixels are saturated (255)"),
        (_no_pictures, "no pictures among its 1 entries (such as notes.txt); give a folder of"),
        (_other_size, "is 64x40 but frame 0 is 64x48; all frames must have one size"),
        (_no_times, "so frames have no times; give --fps"),
        (_only_nan, "frame 3 holds no number, only NaN or infinity; remove it"),
    ],
)
def test_find_says_what_is_wrong_and_leaves_nothing(
    make, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert _find(recording, tmp_path / "night") == 2
    line = _last_line(capsys)
    assert line.startswith(f"error: {recording}: ") and message in line
    assert sorted(tmp_path.rglob("*")) == before


def test_changing_size_in_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = _no_times(tmp_path)
    cv2.imwrite(str(recording / "frame_000009.png"), _noise(1)[0, :40])
    assert _find(recording, tmp_path / "night", "--fps", "25") == 2
    assert "64x40" in _last_line(capsys)
    assert not (tmp_path / "night").exists()


def test_out_that_cannot_be_written(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert _find(clip / "clip.mkv", tmp_path / "file" / "night") == 2
    assert "cannot write --out" in _last_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_out_that_holds_the_recording(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "night"
    assert main(["sky", "simulate", "--out", str(out), *SMALL]) == 0
    capsys.readouterr()
    assert _find(out / "clip.mkv", out, "--force") == 2
    assert "would replace the input" in _last_line(capsys)
    assert (out / "clip.mkv").is_file()


def test_full_disk(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("warte.sky.tables.write_tracks", fail)
    assert _find(clip / "clip.mkv", tmp_path / "night", "--no-faint") == 2
    assert "is full; nothing was kept; make room, try again" in _last_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_speed_max_out_of_range(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _find(clip / "clip.mkv", tmp_path / "night", "--speed-max", "100") == 2
    assert _last_line(capsys).startswith("error: --speed-max is 100; allowed is 0.5 to 60")
    assert list(tmp_path.iterdir()) == []


def test_interrupt_in_the_middle_leaves_nothing(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "night"
    flags = ["sky", "find", str(clip / "clip.mkv"), "--out", str(out), "--quiet"]
    with subprocess.Popen(
        [sys.executable, "-c", TALKATIVE, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "searching\n"
        assert [path.name[:15] for path in out.parent.iterdir()] == [".night.partial-"]
        process.send_signal(signal.SIGINT)
        told, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert (told, err.strip()) == ("", "interrupted; nothing was written")
    assert list(tmp_path.iterdir()) == []


# train ------------------------------------------------------------------------------------------


def test_train_writes_weights_that_find_takes(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights"
    flags = ["--steps", "1", "--clips", "1", "--validation", "0", "--workers", "0", "--quiet"]
    flags += ["--kind-clips", "1"]
    assert main(["sky", "train", "--out", str(out), "--device", "cpu", *flags]) == 0
    assert f"weights: {out}" in capsys.readouterr().out
    run = json.loads((out / "run.json").read_text())
    assert (run["seed"], run["settings"]["steps"]) == (1, 1)
    assert _find(clip / "clip.mkv", tmp_path / "night", "--weights", str(out)) == 0
    capsys.readouterr()
    assert _find(clip / "clip.mkv", tmp_path / "b", "--weights", str(clip)) == 2
    assert _last_line(capsys).startswith(
        f"error: {clip / 'unet.safetensors'} does not hold weights"
    )
    assert not (tmp_path / "b").exists()


# demo -------------------------------------------------------------------------------------------


def test_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(presets, "demo", _scene)
    monkeypatch.chdir(tmp_path)
    assert main(["sky", "demo", "--out", "shown", "--quiet", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("against the truth: 1 of 1 found, 0 false, 0 more pieces")
    assert lines[-1] == f"report: {Path('shown') / 'report.html'}"
    shown = tmp_path / "shown"
    for name in ("clip.mkv", "truth/tracks.csv", "tracks.csv", "annotated.mp4", "report.html"):
        assert (shown / name).stat().st_size > 0
    run = json.loads((shown / "run.json").read_text())
    assert run["evaluation"]["matched"] == 1
