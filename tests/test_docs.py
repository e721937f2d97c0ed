"""The documentation: commands exist and run, links and pictures are there, columns are right."""

import doctest
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
import typer
from scipy.io import wavfile

from warte.cli import main, sky
from warte.cli.app import app
from warte.sky import presets
from warte.sky.simulate import Satellite, SimulateSettings, SkySettings, simulate
from warte.sky.tables import OBSERVATION_COLUMNS, TRACK_COLUMNS
from warte.sky.write import write_recording
from warte.spectra.fit import FIT_COLUMNS, LINE_COLUMNS
from warte.spectra.lines import CLASSES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
NMF_PAGE = ROOT / "docs" / "nmf.md"
LARGEST_PICTURE = 300_000  # bytes


def _names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def _blocks(page: Path) -> Iterator[tuple[str, bool]]:
    """Lines of a page, and whether each is code; lines that end in a backslash are joined."""
    fenced = False
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        else:
            yield line, fenced or line.startswith("    ")


def _command_lines(page: Path) -> list[list[str]]:
    """The words after `warte` of each line of code that is a command."""
    lines = (
        shlex.split(line, comments=True) for line, code in _blocks(page) if code and "warte" in line
    )
    return [line[1:] for line in lines if line and line[0] in ("warte", ".venv/bin/warte")]


def _spread_lines(page: Path) -> list[list[str]]:
    """The words after `warte` of each line of code that starts several processes."""
    lines = (shlex.split(line) for line, code in _blocks(page) if code and " warte " in line)
    starters = ("torchrun", "mpiexec", "srun")
    found = [line[line.index("warte") + 1 :] for line in lines if line[0] in starters]
    # What the shell puts in for a name, such as the number of tasks.
    return [["2" if word.startswith("$") and "/" not in word else word for word in line]
            for line in found]  # fmt: skip


def _python(page: Path) -> list[str]:
    """The blocks of Python of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def _mentions(page: Path) -> list[list[str]]:
    """The words after `warte` of each command within a sentence; arguments may be left out."""
    text = "\n".join(line for line, code in _blocks(page) if not code)
    return [shlex.split(words) for words in re.findall(r"`(?:\.venv/bin/)?warte ([^`]+)`", text)]


def _wrong(words: list[str], *, whole: bool) -> str:
    """What the command line of this program would say against these words; '' for nothing."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"no command {rest[0]}"
        command = command.commands[rest.pop(0)]
    flags = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)} | {
        "--help"
    }
    unknown = [word for word in rest if word.startswith("-") and word.split("=")[0] not in flags]
    if unknown:
        return f"no option {unknown[0]}"
    if whole and "--help" not in rest and not hasattr(command, "commands"):
        try:
            command.make_context("warte", rest)
        except typer.TyperException as problem:
            return problem.format_message()
    return ""


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_commands_are_those_of_the_program(page: Path) -> None:
    wrong = {" ".join(words): _wrong(words, whole=True) for words in _command_lines(page)}
    wrong |= {" ".join(words): _wrong(words, whole=True) for words in _spread_lines(page)}
    wrong |= {" ".join(words): _wrong(words, whole=False) for words in _mentions(page)}
    assert {words: why for words, why in wrong.items() if why} == {}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("sky seek night.mp4", "no command seek"),
        ("sky find night.mp4 --out night --deep", "no option --deep"),
        ("sky find night.mp4", "Missing option"),
        ("sky find night.mp4 --out night --fps fast", "Invalid value for '--fps'"),
    ],
)
def test_a_wrong_command_would_be_seen(words: str, why: str) -> None:
    assert _wrong(words.split(), whole=True).startswith(why)


def test_the_pages_have_commands() -> None:
    found = {page.name: [words[:2] for words in _command_lines(page)] for page in PAGES}
    for name in ("README.md", "sky.md"):
        assert ["sky", "find"] in found[name] and ["sky", "evaluate"] in found[name]
    assert ["sky", "inject"] in [words[:2] for words in _mentions(ROOT / "docs" / "sky.md")]
    for verb in ("fit", "transform"):
        assert ["nmf", verb] in found["nmf.md"]
    assert [words[:2] for words in _spread_lines(NMF_PAGE)] == [["nmf", "fit"]]


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_chores_are_those_of_the_makefile(page: Path) -> None:
    chores = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = re.findall(
        r"(?:^    |`)make (\w+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert set(named) <= chores


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_links_and_pictures_are_there(page: Path) -> None:
    text = "\n".join(line for line, code in _blocks(page) if not code)
    places = [place.split("#")[0] for place in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [place for place in places if place and not re.match(r"[a-z]+:", place)]
    assert [place for place in local if not (page.parent / place).exists()] == []


def test_pictures_are_small() -> None:
    large = [
        path.name
        for path in (ROOT / "docs").glob("**/*.png")
        if path.stat().st_size > LARGEST_PICTURE
    ]
    assert large == []


# the sky example --------------------------------------------------------------------------------


def _scene() -> SimulateSettings:
    """A second of sky with one satellite that nobody could miss."""
    satellite = Satellite(frame=12, x=80, y=60, vx=2.5, vy=1.0, snr=20)
    sky_there = SkySettings(stars_per_mpx=8000)
    return SimulateSettings(frames=24, width=160, height=120, sky=sky_there, movers=(satellite,))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with night.mp4, where the demo's clip is a small one."""
    monkeypatch.setattr(presets, "demo", _scene)
    monkeypatch.chdir(tmp_path)
    frames, _ = simulate(_scene(), np.random.default_rng(2))
    write_recording(tmp_path / "night.mp4", frames, fps=25.0)
    return tmp_path


@pytest.mark.parametrize("name", ["README.md", "docs/sky.md"])
def test_the_commands_of_the_example_run(
    name: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / name
    injections = [words for words in _mentions(page) if words[:2] == ["sky", "inject"]]
    for words in [*_command_lines(page), *injections]:
        assert main(words) == 0, (words, capsys.readouterr().err)
    told = capsys.readouterr().out
    assert "Recall by per-frame SNR" in told
    # The satellite of night.mp4, and that of the simulated clip as truth and as found.
    assert len(re.findall(r"tracks: 1 \(1 \w+\)", told)) == 3


def test_the_result_has_the_files_that_the_readme_names(desk: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE)
    assert main(["sky", "find", "night.mp4", "--out", "night", "--no-faint", "--quiet"]) == 0
    assert sorted(named) == sorted(path.name for path in (desk / "night").iterdir())


def test_the_demo_prints_what_the_readme_shows(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[1].splitlines()
    assert main(["sky", "demo", "--out", "demo", "--quiet"]) == 0
    told = capsys.readouterr().out.splitlines()
    for lines in (block, told):
        heads = [line.split() for line in lines if line.split()[:1] == ["track_id"]]
        assert heads == [sky.SHOWN_COLUMNS], lines

    def last(lines: list[str]) -> list[str]:
        return [re.sub(r"[\d.]+", "0", line) for line in lines[-3:]]

    assert last(block) == last(told)


# the earth example ------------------------------------------------------------------------------


def test_the_readme_shows_a_flood_that_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [words for words in _command_lines(ROOT / "README.md") if words[0] == "earth"]
    assert [words[1] for words in lines] == ["simulate", "change", "evaluate"]
    for words in lines:
        assert main(words) == 0, (words, capsys.readouterr().err)
    told = capsys.readouterr().out.splitlines()
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("what `warte earth")[1]
    shown = block.split("```")[1].split("\n")
    assert _numbers_gone(shown) == _numbers_gone(told)[-len(_numbers_gone(shown)) :]


def test_the_python_of_the_earth_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = ["earth", "simulate", "--preset", "fields", "--side-m", "640", "--out", "x", "-q"]
    assert main(place) == 0
    (scene,) = (tmp_path / "x" / "scenes").iterdir()
    scene.rename(tmp_path / "scene.tif")
    (program,) = _python(ROOT / "docs" / "earth.md")
    seen: dict[str, Any] = {}
    exec(program, seen)  # noqa: S102
    assert seen["found"].clusters == 4
    assert (tmp_path / "clusters" / "clusters.tif").is_file()


def _numbers_gone(lines: list[str]) -> list[list[str]]:
    """The words of the lines, numbers and rules left out."""
    found = [re.sub(r"[\d.─]+", "", line).split() for line in lines]
    return [words for words in found if words]


# the spectra examples ---------------------------------------------------------------------------

SPECTRA_PAGE = ROOT / "docs" / "spectra.md"


def test_the_readme_shows_what_evaluate_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [words for words in _command_lines(ROOT / "README.md") if words[0] == "spectra"]
    assert [words[1] for words in lines] == ["simulate", "classify", "fit", "evaluate"]
    for words in lines:
        assert main(words) == 0, (words, capsys.readouterr().err)
    told = capsys.readouterr().out.split("Two components")[1].splitlines()
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("Two components\n")[1]
    shown = block.split("```")[0].splitlines()

    def rows(lines: list[str]) -> list[list[str]]:
        return [line.split()[:2] for line in lines if line.split()[:1] != ["─" * 57]]

    wanted = [row for row in rows(shown) if row]
    assert [row for row in rows(told) if row][: len(wanted)] == wanted


def test_the_commands_about_spectra_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from astropy.io import fits
    from astroquery.sdss import conf

    from tests.spectra.skyserver import csv_answer, serve

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["spectra", "simulate", "--preset", "doubles", "--count", "4", "--out", "x"]) == 0
    with serve() as site:
        monkeypatch.setattr(conf, "skyserver_baseurl", site.url)
        monkeypatch.setattr(conf, "sas_baseurl", site.url)
        for number, file in enumerate(sorted((tmp_path / "x").glob("*.fits")), start=1):
            # The archive's files have a table of lines, too.
            fits.append(
                file, np.zeros(1, dtype=[("LINEZ", "f4")]), fits.Header({"XTENSION": "BINTABLE"})
            )
            site.files[site.add(266, 51602, number)] = file.read_bytes()
        rows = [f"266,51602,{number},0.1" for number in range(1, 5)]
        site.sql = csv_answer("plate,mjd,fiberid,z", *rows)
        for words in _command_lines(SPECTRA_PAGE):
            assert main(words) == 0, (words, capsys.readouterr().err)
    found = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert found == [
        "classes.csv", "fits.csv", "lines.csv", "lines.fits", "report.html", "run.json"
    ]  # fmt: skip
    (program,) = _python(SPECTRA_PAGE)
    seen: dict[str, Any] = {}
    exec(program, seen)  # noqa: S102
    assert len(seen["result"].fits) == 4 and not seen["failures"]


def test_the_columns_in_the_page_are_those_of_the_files() -> None:
    text = SPECTRA_PAGE.read_text(encoding="utf-8")
    told = set(re.findall(r"`([a-z_0-9]+)`", text))
    assert {*LINE_COLUMNS, *FIT_COLUMNS} <= told
    for name in CLASSES:
        assert f"`{name}`" in text


# the nmf examples -------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page about matrices reads, small."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.random((30, 4)) @ rng.random((4, 9))
    head = ",".join("abcdefghi")
    for name in ("samples.csv", "more.csv"):
        np.savetxt(name, x, delimiter=",", header=head, comments="")
    np.savetxt("hidden.csv", rng.random(x.shape) < 0.1, fmt="%d", delimiter=",")
    noise = 0.2 * rng.standard_normal(x.shape)
    np.savez("spectra.npz", flux=x * (x > 1) + noise, ivar=np.full(x.shape, 25.0))
    seconds = np.arange(8000) / 8000
    tone = 8000 * np.sin(2 * np.pi * 440 * seconds) * (seconds % 0.25 < 0.1)
    wavfile.write("song.wav", 8000, tone.astype(np.int16))
    return tmp_path


def test_the_commands_about_matrices_run(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in _command_lines(NMF_PAGE):
        assert main(words) == 0, (words, capsys.readouterr().err)
    text = NMF_PAGE.read_text(encoding="utf-8")
    named = text.split("The folder `parts/` then holds")[1].split("How\nmuch")[0]
    files = set(re.findall(r"`([a-z]+\.\w+)`", named)) - {"abundances.tif"}
    assert files == {path.name for path in (table / "parts").iterdir()}


def test_the_python_about_matrices_runs(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = sklearn.datasets.load_digits()
    digits.data = digits.data[:200]
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: digits)
    torch.manual_seed(0)
    seen: dict[str, Any] = {}
    exec("\n".join(_python(NMF_PAGE)), seen)  # noqa: S102
    x, hidden = seen["x"], seen["hidden"]
    assert np.linalg.norm(seen["same"] - x) < 0.4 * np.linalg.norm(x)
    assert np.corrcoef(seen["guess"], x[hidden])[0, 1] > 0.75
    assert seen["templates"].shape == (2, 9) and (seen["amounts"] >= 0).all()
    # The parts add up to the sound, but for what rounding takes.
    whole = sum(wavfile.read(path)[1].astype(float) for path in table.glob("part_*.wav"))
    assert np.abs(whole - wavfile.read("song.wav")[1]).max() < 10
    views = seen["views"]
    assert float((seen["tied"]() - views).abs().mean().detach()) < 0.1
    (seen["w"].sum() + seen["h"].sum()).backward()
    assert views.grad is not None and bool(views.grad.abs().sum() > 0)


def test_the_readme_prints_what_it_shows() -> None:
    (block,) = _python(ROOT / "README.md")
    examples = doctest.DocTestParser().get_doctest(block, {}, "README.md", "README.md", 0)
    assert len(examples.examples) > 3
    assert doctest.DocTestRunner().run(examples).failed == 0


# columns ----------------------------------------------------------------------------------------


def test_columns_are_those_of_the_tables() -> None:
    text = (ROOT / "docs" / "sky.md").read_text(encoding="utf-8")
    part = text.split("## What comes out")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", part, flags=re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(rows)) == list(TRACK_COLUMNS)
    paragraph = next(one for one in part.split("\n\n") if one.startswith("`observations.csv`"))
    assert re.findall(r"`(\w+)`", paragraph) == list(OBSERVATION_COLUMNS)
