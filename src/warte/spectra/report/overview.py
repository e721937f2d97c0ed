"""One row per file from all the tables of a result: what the page is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import pandas as pd

from warte.spectra.bpt import ratios
from warte.spectra.lines import CLASSES

# Columns taken from fits.csv, numbers and texts.
FIT_NUMBERS = ("redshift", "components", "chi2_reduced", "log_evidence_ratio", "p_two")
FIT_TEXTS = ("flags", "reason")
# Columns of lines.csv that decide on the class.
LINE_COLUMNS = ("file", "line", "component", "flux", "flux_err")
# Columns of the overview that are "" where there is nothing to say.
TEXTS = (*FIT_TEXTS, "nii_ha_limit", "oiii_hb_limit", "bpt_class", "network_class")


class Failed(Protocol):
    """A file that could not be read."""

    @property
    def name(self) -> str:
        """The file's name."""

    @property
    def reason(self) -> str:
        """Why, in one line."""


def overview(
    fits: pd.DataFrame,
    lines: pd.DataFrame,
    classes: pd.DataFrame | None = None,
    failures: Iterable[Failed] = (),
) -> pd.DataFrame:
    """Join the tables of a result, doubles first.

    Args:
        fits: rows of fits.csv; may be empty.
        lines: rows of lines.csv; may be empty.
        classes: rows of classes.csv.
        failures: files that could not be read; each gets a row.

    Returns:
        One row per file of any table: file, the columns of fits.csv, those of
        `warte.spectra.bpt.ratios`, network_class, p_network (probability of that class),
        p_network_two, and class: by the diagram where both ratios are measured, else by the
        network, else "". Doubles come first, those of Seyferts before others; then single
        Seyferts, then the rest; each by falling log_evidence_ratio. Last comes what failed.
    """
    table = _files(fits, classes, failures)
    known = lines.reindex(columns=LINE_COLUMNS).astype({"file": object})
    for other in (_fitted(fits), ratios(known), _networks(classes)):
        table = table.merge(other, on="file", how="left")
    unread = {one.name: one.reason for one in failures}
    for further in (table.pop("network_reason"), table["file"].map(unread)):
        table["reason"] = _text(table["reason"]).where(_text(table["reason"]) != "", _text(further))
    table = table.assign(**{name: _text(table[name]) for name in TEXTS})
    numbers = [*FIT_NUMBERS, "p_network", "p_network_two"]
    table[numbers] = table[numbers].astype(np.float64)
    table["components"] = table["components"].fillna(0).astype(int)
    table["class"] = table["bpt_class"].where(table["bpt_class"] != "", table["network_class"])
    return _sorted(table)


def double(table: pd.DataFrame) -> pd.Series:
    """Which rows of the overview have two components."""
    return table["components"] == 2


def failed(table: pd.DataFrame) -> pd.Series:
    """Which rows of the overview have neither a fit nor a class; their reason says why."""
    return (table["reason"] != "") & (table["class"] == "")


def _text(values: pd.Series) -> pd.Series:
    """The values with "" for what is missing."""
    return values.astype(object).where(values.notna(), "")


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    keys = pd.DataFrame(
        {
            "failed": failed(table),
            "single": ~double(table),
            "other": table["class"] != "Seyfert",
            "evidence": -table["log_evidence_ratio"].fillna(-np.inf),
            "file": table["file"],
        }
    )
    return table.loc[keys.sort_values(list(keys.columns)).index].reset_index(drop=True)


def _files(
    fits: pd.DataFrame, classes: pd.DataFrame | None, failures: Iterable[Failed]
) -> pd.DataFrame:
    names: list[str] = []
    for table in (fits, classes):
        names += [] if table is None or table.empty else table["file"].to_list()
    names += [one.name for one in failures]
    return pd.DataFrame({"file": pd.Series(list(dict.fromkeys(names)), dtype=object)})


def _fitted(fits: pd.DataFrame) -> pd.DataFrame:
    return fits.reindex(columns=["file", *FIT_NUMBERS, *FIT_TEXTS]).astype({"file": object})


def _networks(classes: pd.DataFrame | None) -> pd.DataFrame:
    wanted = ["file", "network_class", "p_network", "p_network_two", "network_reason"]
    if classes is None or classes.empty:
        return pd.DataFrame({name: pd.Series(dtype=object) for name in wanted})
    chances = [f"p_{name}" for name in CLASSES if f"p_{name}" in classes]
    names = {"class": "network_class", "p_two_components": "p_network_two"}
    table = classes.rename(columns={**names, "reason": "network_reason"})
    return table.assign(p_network=table[chances].max(axis=1)).reindex(columns=wanted)
