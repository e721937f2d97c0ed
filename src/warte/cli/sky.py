"""`warte sky`: the commands of the night-sky domain."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from warte.cli.common import (
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    OutOption,
    QuietOption,
    Report,
    SeedOption,
    choose_device,
    command_line,
    print_result,
    progress,
)
from warte.core.errors import InputError, SettingsError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from warte.core.data.runs import RunFolder
    from warte.sky.evaluate import Scores
    from warte.sky.find import Finding, FindSettings
    from warte.sky.read import Recording
    from warte.sky.simulate import Mover, SimulateSettings
    from warte.sky.tables import Tracks

app = typer.Typer(help="Find satellites, aircraft and meteors in night-sky video.")

Preset = Literal["demo", "faint", "empty", "kinds", "codec"]
Format = Literal[
    "mkv", "mp4", "mov", "avi", "fits", "fits.fz", "ser", "png", "tiff", "jpeg", "fits-folder"
]

Part = Literal["unet", "kind"]

VIDEOS = ("mkv", "mp4", "mov", "avi")
FOLDERS = {"png": "png", "tiff": "tiff", "jpeg": "jpeg", "fits-folder": "fits"}
LONGEST_CLIP = 1_000_000  # frames, some eleven hours at 25 a second
CODEC_CRF = 23  # x264's own default, used for the preset that shows what compression costs
SHOWN_ROWS = 20  # a longer list of tracks is cut on the screen, never in the files
SHOWN_COLUMNS = [
    "track_id", "kind", "probability", "start_frame", "end_frame", "speed_px_s", "snr_frame",
    "snr_track",
]  # fmt: skip

RecordingArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RECORDING",
        help="Video (MP4, MOV, MKV, AVI), FITS, SER, or a folder of PNG, TIFF, JPEG or FITS.",
    ),
]
FpsOption = Annotated[
    float | None,
    typer.Option("--fps", help="Frames per second, where the recording does not say it or errs."),
]
StartOption = Annotated[
    str | None,
    typer.Option("--start", metavar="TIME", help="UTC of frame 0, as 2024-05-01T20:15:00Z."),
]


@app.command("simulate")
def simulate_clip(
    out: OutOption,
    preset: Annotated[Preset, typer.Option(help="What is in the sky.")] = "demo",
    seed: SeedOption = 0,
    frames: Annotated[
        int | None, typer.Option(min=1, max=LONGEST_CLIP, help="Length in frames.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Size in pixels, as 640x480.")
    ] = None,
    snr: Annotated[
        float | None, typer.Option(help="Per-frame SNR of the movers; presets faint and kinds.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(help="Pixels per frame; preset faint, else drawn at random.")
    ] = None,
    kind: Annotated[
        Format | None, typer.Option("--format", help="File format; mkv, for codec mp4.")
    ] = None,
    bits: Annotated[Literal["8", "16"], typer.Option(help="Bits of a grey level.")] = "8",
    crf: Annotated[
        int | None,
        typer.Option("--h264-crf", min=0, max=51, help="Compress with H.264: 0 best, 51 worst."),
    ] = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a recording of a night sky, with the truth about what moves in it.

    Writes clip.* and the truth: tracks.csv, observations.csv, run.json.
    Example: warte sky simulate --preset faint --snr 1.5 --out clip
    """
    if kind is None:
        kind = "mp4" if preset == "codec" else "mkv"
    if crf is None and preset == "codec" and kind in VIDEOS:
        crf = CODEC_CRF
    _check_format(kind, int(bits), crf)
    wanted = None if size is None else _parse_size(size)

    import numpy as np

    from warte.core.data.runs import RunFolder
    from warte.sky.simulate import simulate
    from warte.sky.tables import parse_utc, write_tracks

    rng = np.random.default_rng(seed)
    settings = _refit(_preset_settings(preset, rng, snr, speed), frames, wanted, int(bits))
    with RunFolder(out, force=force, command=command_line(), seed=seed) as run:
        with run.step("simulate"):
            pictures, truth = simulate(settings, rng)
        with run.step("write"), progress(quiet) as report:
            clip = _write_clip(
                run.path,
                _counted(pictures, report, "writing", len(pictures)),
                kind,
                fps=settings.fps,
                start_utc=parse_utc(settings.start_utc),
                bits=int(bits),
                crf=crf,
            )
            write_tracks(truth, run.path)
        run.note(preset=preset, settings=settings, frames=len(pictures), recording=clip.name)
    _print_tracks(truth, {"recording": out / clip.name, "frames": len(pictures)}, as_json)


@app.command("inject")
def inject_movers(
    recording: RecordingArgument,
    out: OutOption,
    count: Annotated[int, typer.Option(min=1, help="Number of satellites.")] = 5,
    snr: Annotated[
        list[float] | None,
        typer.Option(help="Per-frame SNR; given several times, taken in turn. 3 if left out."),
    ] = None,
    speed_range: Annotated[
        str, typer.Option(metavar="LOW-HIGH", help="Speeds in pixels per frame, as 0.3-15.")
    ] = "0.3-15",
    psf_sigma: Annotated[
        float, typer.Option(min=0.3, max=20, help="Width of a star: Gaussian sigma in pixels.")
    ] = 1.2,
    exposure: Annotated[
        float, typer.Option(min=0, max=1, help="Part of a frame in which the shutter is open.")
    ] = 1.0,
    seed: SeedOption = 0,
    fps: FpsOption = None,
    start: StartOption = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put simulated satellites into a real recording, with truth.

    Writes clip.mkv (lossless, 8 or 16 bit; clip.fits for other grey levels) and the truth tables.
    Example: warte sky inject night.mp4 --snr 3 --snr 8 --out injected
    """
    speeds = _parse_speeds(speed_range)
    levels = snr or [3.0]
    for level in levels:
        _check_number("--snr", level, "a brightness", "a number above 0", low=1e-9)

    import numpy as np

    from warte.core.data.runs import RunFolder
    from warte.sky.read import read
    from warte.sky.tables import write_tracks

    rng = np.random.default_rng(seed)
    command = command_line()
    with RunFolder(out, force=force, command=command, seed=seed) as run, progress(quiet) as report:
        source = read(recording, fps=fps, start=start)
        run.add_input(recording)
        with run.step("count"):
            frames = _count_frames(source, report)
        movers = _draw_movers(rng, count, levels, speeds, (source.width, source.height), frames)
        with run.step("inject"):
            clip, truth = _inject_into(
                run.path, source, movers, rng, psf_sigma, exposure, frames, report
            )
        write_tracks(truth, run.path)
        run.note(frames=frames, recording=clip.name, movers=movers, warnings=source.warnings)
    _print_tracks(truth, {"recording": out / clip.name, "frames": frames}, as_json)


@app.command("find")
def find_movers(
    recording: RecordingArgument,
    out: OutOption,
    fps: FpsOption = None,
    start: StartOption = None,
    speed_max: Annotated[
        float | None,
        typer.Option(
            help="Fastest motion looked for, in pixels per frame: 0.5 to 60; 15 if left out."
        ),
    ] = None,
    faint: Annotated[
        bool,
        typer.Option("--faint/--no-faint", help="Search also for what no single frame shows."),
    ] = True,
    false_tracks: Annotated[
        float | None,
        typer.Option(
            help="Faint tracks that noise alone may make, per 100 frames; 0.05 if left out."
        ),
    ] = None,
    video: Annotated[
        bool, typer.Option("--video/--no-video", help="Write annotated.mp4, which takes a while.")
    ] = True,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of `warte sky train`; else the package's."),
    ] = None,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find every satellite, aircraft and meteor in a recording.

    Writes tracks.csv, observations.csv, report.html, annotated.mp4, preview.png and run.json.
    Example: warte sky find night.mp4 --out night
    """
    from warte.core.data.runs import RunFolder
    from warte.sky.read import read

    with RunFolder(out, force=force, command=command_line()) as run, progress(quiet) as report:
        source = read(recording, fps=fps, start=start)
        run.add_input(recording)
        settings = _find_settings(speed_max, faint, false_tracks)
        finding = _find_into(run, source, settings, device, weights, report, video=video)
    facts: dict[str, object] = {"report": out / "report.html", "frames": finding.frames}
    _print_tracks(finding.found, facts, as_json, warnings=finding.warnings)


@app.command("evaluate")
def evaluate_tracks(
    found: Annotated[Path, typer.Argument(metavar="FOUND", help="Folder of `warte sky find`.")],
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="Folder with the true tables, or truth in JSON.")
    ],
    radius: Annotated[
        float, typer.Option(help="Largest distance in pixels at which positions agree.")
    ] = 3.0,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames searched; else taken from FOUND's run.json.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare found tracks with true ones, one to one.

    Example: warte sky evaluate night clip
    """
    from warte.sky.evaluate import evaluate
    from warte.sky.tables import read_tracks

    searched = _frames_searched(found) if frames is None else frames
    scores = evaluate(read_tracks(found), read_tracks(truth), radius_px=radius, frames=searched)
    if as_json:
        print_result(scores.to_dict(), True)
        return
    for title, table in scores.tables().items():
        if len(table):
            print(f"\n{title}")
            print_result(table, False)


@app.command("train")
def train_networks(
    out: OutOption,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Updates of the U-Net's weights.")
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Simulated recordings that the U-Net learns from.")
    ] = None,
    kind_clips: Annotated[
        int | None,
        typer.Option(min=1, help="Simulated recordings that the kind classifier learns from."),
    ] = None,
    validation: Annotated[
        int | None, typer.Option(min=0, help="Held-out recordings for the figures in the cards.")
    ] = None,
    only: Annotated[
        Part | None,
        typer.Option(help="Train only this one; the other is copied from --weights."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where --only copies from; else the package's."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that simulate; the weights do not depend on it.")
    ] = 1,
    seed: SeedOption = 1,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train both networks on simulated recordings, which takes hours; Ctrl-C leaves nothing.

    Without flags it does what made the package's weights: the U-Net that sees movers, then the
    classifier of their kind. Writes weights, their cards, run.json.
    Example: warte sky train --out weights
    """
    from dataclasses import replace

    from warte.core.data.runs import RunFolder
    from warte.sky.train import KindSettings, TrainSettings, copy_weights, train, train_kinds

    if weights is not None and only is None:
        raise SettingsError("--weights goes with --only, where one network is kept; give both")
    base, kinds = TrainSettings(seed=seed), KindSettings(seed=seed)
    settings = replace(
        base,
        steps=steps or base.steps,
        clips=clips or base.clips,
        validation=base.validation if validation is None else validation,
    )
    kind_settings = replace(
        kinds,
        clips=kind_clips or kinds.clips,
        validation=kinds.validation if validation is None else validation,
    )
    command = command_line()
    cards: dict[str, dict[str, object]] = {}
    with RunFolder(out, force=force, command=command, seed=seed) as run, progress(quiet) as report:
        if only is not None:
            copy_weights("kind" if only == "unet" else "unet", weights, run.path)
        if only != "kind":
            with run.step("unet"):
                cards["unet"] = train(
                    settings,
                    device=choose_device(device),
                    out=run.path,
                    workers=workers,
                    report=lambda step, steps, loss: report("training", step, steps),
                )
            run.note(settings=settings)
        if only != "unet":
            with run.step("kind"):
                cards["kind"] = train_kinds(
                    kind_settings,
                    weights=run.path,
                    workers=workers,
                    out=run.path,
                    report=lambda done, total: report("kinds", done, total),
                )
            run.note(kind_settings=kind_settings)
    if as_json:
        print_result({"weights": out, "cards": cards}, True)
        return
    for card in cards.values():
        figures = card["figures"]
        print_result(_numbers(figures) if isinstance(figures, dict) else {}, False)
    if "unet" in cards:
        print(f"loss: {cards['unet']['loss_first']} at first, {cards['unet']['loss_last']} at last")
    print(f"weights: {out}")


def _numbers(figures: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


@app.command("demo")
def demo(
    out: OutOption = Path("demo"),
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a clip, find what moves in it, and compare with the truth.

    Writes clip.mkv, the truth in truth/, and everything that `find` writes.
    Example: warte sky demo --out demo
    """
    import numpy as np

    from warte.core.data.runs import RunFolder
    from warte.sky import presets
    from warte.sky.evaluate import evaluate
    from warte.sky.read import read
    from warte.sky.simulate import simulate
    from warte.sky.tables import parse_utc, write_tracks

    settings = presets.demo()
    rng = np.random.default_rng(seed)
    command = command_line()
    with RunFolder(out, force=force, command=command, seed=seed) as run, progress(quiet) as report:
        with run.step("simulate"):
            pictures, truth = simulate(settings, rng)
        start = parse_utc(settings.start_utc)
        clip = _write_clip(run.path, pictures, "mkv", fps=settings.fps, start_utc=start)
        write_tracks(truth, run.path / "truth")
        search = _find_settings(None, True, None)
        finding = _find_into(run, read(clip), search, device, None, report)
        scores = evaluate(finding.found, truth, frames=finding.frames)
        run.note(evaluation=scores.to_dict()["summary"])
    _print_tracks(finding.found, {"frames": finding.frames}, False, warnings=finding.warnings)
    print(_against_truth(scores))
    print(f"report: {out / 'report.html'}")


def _preset_settings(
    preset: Preset, rng: "np.random.Generator", snr: float | None, speed: float | None
) -> "SimulateSettings":
    if snr is not None and preset not in ("faint", "kinds"):
        raise SettingsError(f"--snr is for --preset faint and kinds, not {preset}; leave it out")
    if speed is not None and preset != "faint":
        raise SettingsError(f"--speed is for --preset faint, not {preset}; leave it out")
    if snr is not None:
        _check_number("--snr", snr, "a brightness", "a number from 0")
    if speed is not None:
        _check_number("--speed", speed, "a speed", "pixels per frame from 0")
    from warte.sky import presets

    if preset == "faint":
        return presets.faint(2.0 if snr is None else snr, speed, rng=rng)
    if preset == "kinds":
        return presets.kinds(rng) if snr is None else presets.kinds(rng, snr=snr)
    fixed = {"demo": presets.demo, "empty": presets.empty, "codec": presets.codec}
    return fixed[preset]()


def _refit(
    settings: "SimulateSettings", frames: int | None, size: tuple[int, int] | None, bits: int
) -> "SimulateSettings":
    """The same scene with another length, size or depth: movers keep their place in the picture
    and in the clip and their velocity, grey levels their share of the full range."""
    from dataclasses import replace

    from warte.sky.simulate import CameraSettings

    frames = settings.frames if frames is None else frames
    width, height = (settings.width, settings.height) if size is None else size
    later, wider, higher = (
        frames / settings.frames,
        width / settings.width,
        height / settings.height,
    )
    movers = tuple(
        replace(one, frame=one.frame * later, x=one.x * wider, y=one.y * higher)
        for one in settings.movers
    )
    camera = settings.camera
    finer = CameraSettings(bits=bits).white / camera.white
    camera = replace(camera, bits=bits, gain=camera.gain * finer, bias=camera.bias * finer)
    return replace(
        settings, frames=frames, width=width, height=height, movers=movers, camera=camera
    )


def _check_number(
    flag: str, value: float, what: str, allowed: str, *, low: float = 0.0, high: float = 1e6
) -> None:
    if not low <= value <= high:  # NaN is not either
        raise SettingsError(f"{flag} {value:g} is not {what}; give {allowed}, at most {high:g}")


def _parse_size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise SettingsError(f"--size {text!r} is not a size; give WIDTHxHEIGHT, as 640x480")
    return int(parts[0]), int(parts[1])


def _parse_speeds(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split("-"))
    except ValueError:
        low, high = 0.0, 0.0
    if not 0 < low <= high < float("inf"):
        raise SettingsError(
            f"--speed-range {text!r} is not a range; give LOW-HIGH in pixels per frame, as 0.3-15"
        )
    return low, high


def _check_format(kind: Format, bits: int, crf: int | None) -> None:
    if crf is not None and kind not in VIDEOS:
        raise SettingsError(
            f"--h264-crf does not go with --format {kind}; give one of {', '.join(VIDEOS)}"
        )
    if bits == 16 and (crf is not None or kind in ("mp4", "mov", "jpeg")):
        raise SettingsError(
            "--bits 16 does not fit into H.264 or JPEG; give --bits 8, or --format mkv, fits or ser"
        )


def _write_clip(
    folder: Path,
    frames: "Iterable[np.ndarray]",
    kind: Format,
    *,
    fps: float,
    start_utc: "np.datetime64 | None",
    bits: int = 8,
    crf: int | None = None,
) -> Path:
    """Write a recording into a folder under the name clip; its path. crf: None for no H.264 where
    the format does without."""
    from warte.sky.write import write_frames_folder, write_recording

    common: dict[str, Any] = {"fps": fps, "start_utc": start_utc, "bits": bits}
    if kind in FOLDERS:
        write_frames_folder(folder / "clip", frames, kind=FOLDERS[kind], **common)
        return folder / "clip"
    if crf is not None:
        common |= {"codec": "h264", "crf": crf}
    write_recording(folder / f"clip.{kind}", frames, **common)
    return folder / f"clip.{kind}"


def _counted(
    frames: "Iterable[np.ndarray]", report: Report, step: str, total: int
) -> "Iterator[np.ndarray]":
    for done, frame in enumerate(frames, start=1):
        yield frame
        report(step, done, total)


def _count_frames(recording: "Recording", report: Report) -> int:
    """Number of frames; they are read once, because a file may break off before it says."""
    count = 0
    for frame in recording.frames():
        count = frame.index + 1
        report("counting frames", count, recording.frame_count)
    return count


def _draw_movers(
    rng: "np.random.Generator",
    count: int,
    snr: list[float],
    speeds: tuple[float, float],
    size: tuple[int, int],
    frames: int,
) -> "tuple[Mover, ...]":
    """Steady satellites that each are in the picture in some frame of the middle of the clip."""
    import numpy as np

    from warte.sky.simulate import Satellite

    movers = []
    for number in range(count):
        speed = float(np.exp(rng.uniform(*np.log(speeds))))
        way = rng.uniform(0, 2 * np.pi)
        x, y = rng.uniform(0.2, 0.8, 2) * (np.array(size) - 1)
        movers.append(
            Satellite(
                frame=float(rng.uniform(0.2, 0.8) * (frames - 1)),
                x=float(x),
                y=float(y),
                vx=float(speed * np.cos(way)),
                vy=float(speed * np.sin(way)),
                snr=snr[number % len(snr)],
            )
        )
    return tuple(movers)


def _inject_into(
    folder: Path,
    recording: "Recording",
    movers: "tuple[Mover, ...]",
    rng: "np.random.Generator",
    psf_sigma_px: float,
    exposure: float,
    frames: int,
    report: Report,
) -> "tuple[Path, Tracks]":
    """Write the recording with movers, one frame at a time; the file's path and the truth."""
    from itertools import islice

    import numpy as np

    from warte.sky.simulate import estimate_noise, inject_stream, truth_tracks

    near = islice(recording.frames(max(0, frames // 2 - 8)), 16)
    noise = estimate_noise(np.stack([frame.pixels for frame in near]), recording.levels)
    bits = _whole_bits(recording)
    rows: list[Any] = []

    def lit() -> Iterator[Any]:
        pictures = (_quantised(frame.pixels, bits) for frame in recording.frames())
        stream = inject_stream(
            pictures,
            movers,
            rng,
            noise=noise,
            psf_sigma_px=psf_sigma_px,
            exposure=exposure,
            levels=1.0 if bits else recording.levels,
            saturation=recording.saturation,
        )
        for picture, seen in stream:
            rows.extend(seen)
            yield picture

    clip = _write_clip(
        folder,
        _counted(lit(), report, "injecting", frames),
        "mkv" if bits else "fits",
        fps=recording.fps,
        start_utc=recording.start_utc,
        bits=bits,
    )
    return clip, truth_tracks(rows, movers, recording.fps, recording.start_utc)


def _whole_bits(recording: "Recording") -> int:
    """Bits of a video that holds the grey levels; 0 where only floating point does."""
    top = recording.saturation
    if recording.levels is None or top not in {2**bits - 1 for bits in (8, 10, 12, 14, 16)}:
        return 0
    return 8 if top == 255 else 16


def _quantised(pixels: "np.ndarray", bits: int) -> "np.ndarray":
    import numpy as np

    if bits == 0:
        return pixels
    # Video of studio range, stretched by the reader, has levels between whole numbers and beyond.
    whole = np.clip(np.rint(pixels), 0, 2**bits - 1)
    return whole.astype(np.uint8 if bits == 8 else np.uint16)


def _find_settings(
    speed_max: float | None, faint: bool, false_tracks: float | None
) -> "FindSettings":
    from warte.sky.find import FindSettings

    given = {"speed_max_px": speed_max, "false_tracks": false_tracks}
    return FindSettings(faint=faint, **{k: v for k, v in given.items() if v is not None})


def _find_into(
    run: "RunFolder",
    recording: "Recording",
    settings: "FindSettings",
    device: Device,
    weights: Path | None,
    report: Report,
    *,
    video: bool = True,
) -> "Finding":
    """Search a recording and write all results into the run's folder."""
    from dataclasses import asdict

    from warte.sky.find import find
    from warte.sky.report import write_report
    from warte.sky.tables import write_tracks

    chosen = choose_device(device)
    finding = find(recording, settings, device=chosen, weights=weights, report=report)
    for step, taken in finding.seconds.items():
        run.seconds[step] = run.seconds.get(step, 0.0) + taken
    write_tracks(finding.found, run.path)
    with run.step("report"):
        write_report(
            run.path,
            recording,
            finding.found,
            settings=asdict(settings),
            warnings=finding.warnings,
            seconds=finding.seconds,
            video=video,
            on_frame=lambda done: report("report", done, finding.frames),
        )
    run.note(
        settings=settings,
        device=chosen,
        frames=finding.frames,
        tracks=len(finding.found.tracks),
        warnings=finding.warnings,
    )
    return finding


def _frames_searched(found: Path) -> int | None:
    """Number of frames from the run.json beside the tables; None where there is none."""
    import json

    file = (found if found.is_dir() else found.parent) / "run.json"
    if not file.is_file():
        return None
    try:
        frames = json.loads(file.read_text(encoding="utf-8")).get("frames")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{file}: not a readable run.json ({error}); give --frames") from error
    return frames if isinstance(frames, int) and frames > 0 else None


def _print_tracks(
    tracks: "Tracks",
    facts: dict[str, object],
    as_json: bool,
    *,
    warnings: Iterable[str] = (),
) -> None:
    table = tracks.tracks
    if as_json:
        rows: Any = {"warnings": list(warnings), "tracks": table.to_dict("records")}
        print_result({**facts, **rows}, True)
        return
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    if len(table):
        print_result(_strongest(table), False)
    kinds = table["kind"].value_counts().sort_index()
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    print(f"tracks: {len(table)}" + (f" ({counted})" if counted else ""))
    for name, value in facts.items():
        print(f"{name}: {value}")


def _strongest(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows and columns that fit on a screen, in the order of track_id."""
    strongest = table.nlargest(SHOWN_ROWS, "snr_track").sort_values("track_id")
    return strongest[SHOWN_COLUMNS]


def _against_truth(scores: "Scores") -> str:
    """One line: what was found of what is there, and what was found beside it."""
    figures = scores.to_dict()["summary"]
    line = (
        f"against the truth: {figures['matched']} of {figures['true tracks']} found, "
        f"{figures['false']} false, {figures['fragments']} more pieces"
    )
    if figures["position_median_px"] is None:
        return line
    return f"{line}, positions off by {figures['position_median_px']:.2f} px (median)"
