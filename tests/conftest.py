"""What all tests share: property tests that can be repeated, no display, the real files."""

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from warte.core.data import registry

# Property tests draw the same examples each time, so that a failure can be repeated.
hypothesis.settings.register_profile("warte", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("warte")

os.environ.setdefault("MPLBACKEND", "Agg")
if os.environ.get(registry.DATA_VARIABLE):
    # Some tests run the program in another folder.
    os.environ[registry.DATA_VARIABLE] = str(Path(os.environ[registry.DATA_VARIABLE]).resolve())


@pytest.fixture
def real_file() -> Callable[[str], Path]:
    """A function from a registered name to the checked file; it skips the test where none is."""

    def find(name: str) -> Path:
        if registry.locate(name) is None:
            pytest.skip(f"{name} is not here: set {registry.DATA_VARIABLE} or fetch it")
        return registry.get(name)

    return find
