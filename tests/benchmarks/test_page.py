"""The printed side of the benchmark: Markdown between markers, rates, the picture, the flags."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import page
from benchmarks.__main__ import main
from benchmarks.sky.picture import draw_recall

BEGIN, END = page.markers("sky")


def _section(value: float) -> str:
    table = page.Table("Speed", pd.DataFrame({"size": ["4x3"], "frames/s": [value]}), "A note.")
    return page.markdown([table], "## Sky")


def test_markdown_goes_between_its_markers(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "benchmarks.md"
    page.write_markdown(path, _section(25.0), "sky")
    path.write_text("before\n" + path.read_text() + "after\n")
    page.write_markdown(path, _section(50.0), "sky")
    text = path.read_text()
    assert text.startswith("before\n# Benchmarks") and text.endswith("after\n")
    assert "| 4x3 | 50 |" in text and "| 4x3 | 25 |" not in text
    assert text.count(BEGIN) == text.count(END) == 1


def test_a_page_without_markers_gets_them_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("words")
    page.write_markdown(path, _section(1.0), "sky")
    assert path.read_text().startswith(f"words\n\n{BEGIN}")
    path.write_text(f"only {BEGIN}")
    with pytest.raises(ValueError, match="one of the two markers only"):
        page.write_markdown(path, _section(1.0), "sky")


def test_rates_have_intervals() -> None:
    assert page.rate(0, 0) == "-"
    # Wilson's interval of 9 in 10 is 0.596 to 0.982 (Wilson 1927).
    assert page.rate(9, 10) == "0.90 (0.60-0.98)"


def test_the_recall_picture(tmp_path: Path) -> None:
    table = pd.DataFrame({"snr": [0.5, 1.0, 2.0], "hits": [0, 9, 10], "trials": [10, 10, 10]})
    draw_recall(tmp_path / "recall.png", {"Warte": table, "four-frame": table})
    assert (tmp_path / "recall.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "flags",
    [["--only", "faint,nonsense"], ["--clips", "0"], ["--seed0", "5"], ["--device", "tpu"]],
)
def test_flags_out_of_range(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["sky", *flags])
    assert left.value.code == 2
    assert f"argument {flags[0]}" in capsys.readouterr().err


def test_a_picture_needs_a_curve(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--picture needs the part faint or codec"):
        main(["sky", "--only", "kind", "--picture", str(tmp_path / "recall.png")])
