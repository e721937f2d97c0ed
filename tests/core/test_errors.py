"""The family of errors a user can cause."""

import pytest

from warte.core import errors


@pytest.mark.parametrize(
    "kind",
    [errors.InputError, errors.SettingsError, errors.OutputError, errors.DataError],
)
def test_family(kind: type[errors.WarteError]) -> None:
    assert issubclass(kind, errors.WarteError)
    assert str(kind("what to do")) == "what to do"


def test_missing_extra_names_package_and_extra() -> None:
    problem = errors.MissingExtraError("optuna", "search")
    assert isinstance(problem, errors.WarteError)
    assert str(problem) == "the package optuna is not installed; type: pip install 'warte[search]'"
