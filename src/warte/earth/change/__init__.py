"""Changes between dates and over series: what changed, where and when."""

from warte.earth.change.find import change
from warte.earth.change.settings import Changed, ChangeSettings

__all__ = ["ChangeSettings", "Changed", "change"]
