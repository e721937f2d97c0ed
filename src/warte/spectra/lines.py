"""Emission lines: vacuum wavelengths, fixed ratios, and the groups that are fitted together."""

from __future__ import annotations

from dataclasses import dataclass

# Rest wavelengths in vacuum, Angstrom (NIST ASD; Balmer lines: means of their fine structure).
WAVELENGTH: dict[str, float] = {
    "[O II] 3727": 3727.092,
    "[O II] 3729": 3729.875,
    "[Ne III] 3869": 3869.86,
    "H-delta": 4102.89,
    "H-gamma": 4341.68,
    "[O III] 4363": 4364.436,
    "He II 4686": 4687.02,
    "H-beta": 4862.68,
    "[O III] 4959": 4960.295,
    "[O III] 5007": 5008.240,
    "He I 5876": 5877.25,
    "[O I] 6300": 6302.046,
    "[O I] 6364": 6365.536,
    "[N II] 6548": 6549.86,
    "H-alpha": 6564.61,
    "[N II] 6583": 6585.27,
    "[S II] 6716": 6718.29,
    "[S II] 6731": 6732.67,
}

# Photons of both lines leave the same level, so nature fixes these ratios of fluxes.
OIII_RATIO = 2.98  # 5007 / 4959, Storey & Zeippen 2000, MNRAS 312, 813
NII_RATIO = 3.05  # 6583 / 6548, same source
CASE_B = 2.86  # H-alpha / H-beta without dust at 10^4 K, Osterbrock & Ferland 2006; AGN: 3.1


@dataclass(frozen=True)
class Group:
    """Lines that share one flux parameter: the flux of the first line.

    lines: (name in WAVELENGTH, flux as a multiple of the first line's), the first with 1.
    """

    name: str
    lines: tuple[tuple[str, float], ...]


H_BETA = Group("H-beta", (("H-beta", 1.0),))
OIII = Group("[O III]", (("[O III] 5007", 1.0), ("[O III] 4959", 1 / OIII_RATIO)))
H_ALPHA = Group("H-alpha", (("H-alpha", 1.0),))
NII = Group("[N II]", (("[N II] 6583", 1.0), ("[N II] 6548", 1 / NII_RATIO)))
SII_6716 = Group("[S II] 6716", (("[S II] 6716", 1.0),))
SII_6731 = Group("[S II] 6731", (("[S II] 6731", 1.0),))

BLUE_WINDOW = (4780.0, 5100.0)  # rest Angstrom: H-beta and [O III]
RED_WINDOW = (6480.0, 6800.0)  # rest Angstrom: H-alpha, [N II] and [S II]
BLUE_GROUPS = (H_BETA, OIII)
RED_GROUPS = (H_ALPHA, NII, SII_6716, SII_6731)

CLASSES = ("star-forming", "composite", "Seyfert", "LINER", "broad-line", "passive")
