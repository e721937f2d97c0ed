"""Telling a full disk from other troubles. Imports nothing heavy: the command line needs it."""

import errno
import os

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_TEXTS = (os.strerror(errno.ENOSPC), "Not enough space on disk")  # the second is astropy's


def is_disk_full(problem: BaseException) -> bool:
    """Whether an exception, or one that led to it, says that the disk or the quota is full.

    Libraries that are not written in Python often keep only the text of the system's error.
    """
    seen: BaseException | None = problem
    while seen is not None:
        if getattr(seen, "errno", None) in _DISK_FULL:
            return True
        if isinstance(seen, Exception) and any(text in str(seen) for text in _TEXTS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
