"""Who may import whom. The order of the layers itself stands in pyproject.toml."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "warte").rglob("*.py"))


def _imported(path: Path) -> set[str]:
    """First names of all modules that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_imports_point_one_way() -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; from importlinter.cli import lint_imports_command",
    ]
    command[-1] += "; sys.exit(lint_imports_command(['--no-cache']))"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Imports point one way: cli, then domains, then nmf, then core KEPT" in done.stdout


def test_only_reports_import_matplotlib() -> None:
    found = {path for path in SOURCES if "matplotlib" in _imported(path)}
    rooms = {path for path in found if path.stem == "report" or path.parent.name == "report"}
    assert found == rooms


def test_randomness_is_passed_in() -> None:
    """Python's global generator is not used; ruff's NPY rules say the same of NumPy's."""
    assert [path for path in SOURCES if "random" in _imported(path)] == []


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["sky", "--help"], ["spectra", "--help"], ["data", "--help"]],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = ["torch", "cv2", "pandas", "numpy", "scipy", "astropy", "av", "matplotlib", "pooch"]
    program = (
        "import sys\n"
        "from warte.cli import main\n"
        f"code = main({arguments!r})\n"
        f"print('heavy:', [name for name in {heavy!r} if name in sys.modules], 'code:', code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "heavy: [] code: 0", done.stdout + done.stderr
