"""The errors a user can cause.

Each message is one line: what was found, what is allowed, what to do.

WarteError
├── InputError         a file or folder that was given cannot be used
├── SettingsError      a flag or a value is out of range
├── OutputError        the results cannot be written
├── MissingExtraError  an optional package is not installed
├── StoppedError       stopped from outside; started again, it goes on from what it kept
└── DataError          a registered file is unknown, damaged or not here

The command line turns them into `error: ...` on stderr and exit code 2.
"""


class WarteError(Exception):
    """Base of all errors that the user can mend."""


class InputError(WarteError):
    """A file or folder given by the user is unusable."""


class SettingsError(WarteError):
    """A flag or a value is out of range; the message names the flag."""


class OutputError(WarteError):
    """The results cannot be written: the folder exists, is not writable, or the disk is full."""


class MissingExtraError(WarteError):
    """An optional package is missing.

    Args:
        package: name under which the package is imported, for example "optuna".
        extra: the extra of Warte that installs it, for example "search".
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the package {package} is not installed; type: pip install 'warte[{extra}]'"
        )
        self.package = package
        self.extra = extra


class StoppedError(WarteError):
    """A run was stopped from outside; started again, it goes on from what it has kept."""


class DataError(WarteError):
    """A registered file is unknown, has the wrong checksum, or is not on this machine."""
