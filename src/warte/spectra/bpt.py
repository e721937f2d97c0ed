"""The diagram of Baldwin, Phillips & Terlevich 1981 (PASP 93, 5): what makes the gas shine.

x is log10([N II] 6583 / H-alpha), y is log10([O III] 5007 / H-beta), both of narrow lines.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

FloatArray = npt.NDArray[np.float64]

NII_HA = ("[N II] 6583", "H-alpha")
OIII_HB = ("[O III] 5007", "H-beta")
LEAST_SNR = 3.0  # a line at or below it only bounds a ratio
KEWLEY_POLE = 0.47  # x from which everything lies above the curve
KAUFFMANN_POLE = 0.05


def kewley_2001(log_nii_ha: npt.ArrayLike) -> FloatArray:
    """y of the upper edge of what stars alone can do; NaN from x = 0.47, where all lie above.

    Kewley et al. 2001, ApJ 556, 121, equation 5.
    """
    return _hyperbola(log_nii_ha, KEWLEY_POLE, 1.19)


def kauffmann_2003(log_nii_ha: npt.ArrayLike) -> FloatArray:
    """y of the upper edge of the star-forming galaxies; NaN from x = 0.05, where all lie above.

    Kauffmann et al. 2003, MNRAS 346, 1055, equation 1.
    """
    return _hyperbola(log_nii_ha, KAUFFMANN_POLE, 1.3)


def schawinski_2007(log_nii_ha: npt.ArrayLike) -> FloatArray:
    """y of the line between LINERs (below) and Seyferts (above).

    Schawinski et al. 2007, MNRAS 382, 1415.
    """
    return 1.05 * np.asarray(log_nii_ha, dtype=np.float64) + 0.45


def bpt_class(log_nii_ha: npt.ArrayLike, log_oiii_hb: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """Class by the place in the diagram, in the common shape of both: "" where one is NaN.

    On or below Kauffmann 2003 "star-forming", above it up to Kewley 2001 "composite", above both
    "Seyfert" or "LINER". Left of x = -1.28 the curves cross, and what lies below Kauffmann's is
    still star-forming: galaxies there are poor in metals.
    """
    x, y = np.broadcast_arrays(
        np.asarray(log_nii_ha, dtype=np.float64), np.asarray(log_oiii_hb, dtype=np.float64)
    )
    # Comparisons with the NaN right of a pole are false, as they should be.
    places = [
        np.isnan(x) | np.isnan(y),
        y <= kauffmann_2003(x),
        y <= kewley_2001(x),
        y > schawinski_2007(x),
    ]
    return np.select(places, ["", "star-forming", "composite", "Seyfert"], "LINER")


def ratios(lines: pd.DataFrame) -> pd.DataFrame:
    """Both ratios of each file, from the summed fluxes of its narrow components.

    Broad components are left out. Errors of components are added in quadrature, which is too
    much where two components overlap: then the errors of their fluxes are opposed.

    Args:
        lines: columns file, line, component ("broad" marks the broad one), flux, flux_err.

    Returns:
        One row per file in the order of their first lines: file; log_nii_ha, log_nii_ha_err,
        nii_ha_limit; the same three for oiii_hb; bpt_class. A ratio of two lines with S/N above 3
        is measured, and its limit is "". Where one line is weaker, its flux is taken as three times
        its error: the ratio is an "upper" or a "lower" limit and its error NaN. Where both are, or
        one was not fitted, the ratio is NaN. Only two measured ratios give a class.
    """
    narrow = lines[lines["component"].astype(str) != "broad"]
    unknown = narrow[["flux", "flux_err"]].isna().any(axis=1)
    narrow = narrow.assign(variance=narrow["flux_err"] ** 2, unknown=unknown)
    sums = narrow.groupby(["file", "line"], sort=False)[["flux", "variance", "unknown"]].sum()
    sums = sums[sums["unknown"] == 0]  # a sum without one of its components would be too small
    files = pd.Index(pd.unique(lines["file"]), name="file")
    flux = {name: _of_line(sums["flux"], name, files) for name in (*NII_HA, *OIII_HB)}
    error = {name: _of_line(sums["variance"], name, files) ** 0.5 for name in flux}
    out = pd.DataFrame({"file": files})
    for short, (upper, lower) in (("nii_ha", NII_HA), ("oiii_hb", OIII_HB)):
        values, errors, limits = _log_ratio(flux[upper], error[upper], flux[lower], error[lower])
        out[f"log_{short}"], out[f"log_{short}_err"], out[f"{short}_limit"] = values, errors, limits
    measured = (out["nii_ha_limit"] == "") & (out["oiii_hb_limit"] == "")
    out["bpt_class"] = np.where(measured, bpt_class(out["log_nii_ha"], out["log_oiii_hb"]), "")
    return out


def _hyperbola(log_nii_ha: npt.ArrayLike, pole: float, level: float) -> FloatArray:
    x = np.asarray(log_nii_ha, dtype=np.float64)
    return 0.61 / np.where(x < pole, x - pole, np.nan) + level


def _of_line(sums: pd.Series, line: str, files: pd.Index) -> FloatArray:
    """Values of one line in the order of the files, NaN where it was not fitted."""
    ours = sums[sums.index.get_level_values("line") == line].droplevel("line")
    return np.asarray(ours.reindex(files), dtype=np.float64)


def _log_ratio(
    upper: FloatArray, upper_err: FloatArray, lower: FloatArray, lower_err: FloatArray
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.str_]]:
    """log10(upper / lower), its error, and which limit it is."""
    strong = upper > LEAST_SNR * upper_err
    firm = lower > LEAST_SNR * lower_err
    known = np.isfinite(upper_err) & np.isfinite(lower_err) & (strong | firm)
    known &= np.isfinite(upper) & np.isfinite(lower)
    above = np.where(strong, upper, LEAST_SNR * upper_err)
    below = np.where(firm, lower, LEAST_SNR * lower_err)
    known &= (above > 0) & (below > 0)
    value = np.full(upper.shape, np.nan)
    value[known] = np.log10(above[known] / below[known])
    error = np.full(upper.shape, np.nan)
    both = known & strong & firm
    relative = np.hypot(upper_err[both] / upper[both], lower_err[both] / lower[both])
    error[both] = relative / np.log(10)
    limit = np.select([known & ~strong, known & ~firm], ["upper", "lower"], "")
    return value, error, limit
