"""Which spectra are of the same object, by where they stand in the sky."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from warte.spectra.spectrum import Spectrum

RADIUS_ARCSEC = 2.0  # an SDSS fibre is 3 arcsec wide, and plugged to well under one


def same_objects(spectra: Sequence[Spectrum], radius_arcsec: float = RADIUS_ARCSEC) -> list[str]:
    """An object's name for each spectrum: its right ascension and declination in degrees.

    Spectra that stand closer than `radius_arcsec`, or are linked by a chain of such, are of one
    object and get the position of the first of them by name. A spectrum without a position is
    alone and gets its own name.
    """
    ra = np.array([spectrum.ra_deg for spectrum in spectra], dtype=np.float64)
    dec = np.array([spectrum.dec_deg for spectrum in spectra], dtype=np.float64)
    placed = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    found = [spectrum.name for spectrum in spectra]
    if not placed.size:
        return found
    right, up = np.radians(ra[placed]), np.radians(dec[placed])
    unit = np.stack([np.cos(up) * np.cos(right), np.cos(up) * np.sin(right), np.sin(up)], axis=1)
    chord = 2 * np.sin(np.radians(radius_arcsec / 3600) / 2)
    pairs = cKDTree(unit).query_pairs(chord, output_type="ndarray")
    size = placed.size
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    _, group = connected_components(links, directed=False)
    members = list(zip(placed.tolist(), group.tolist(), strict=True))
    first: dict[int, int] = {}
    for index, member in sorted(members, key=lambda pair: spectra[pair[0]].name):
        first.setdefault(member, index)
    for index, member in members:
        leader = first[member]
        found[index] = f"{ra[leader]:.5f},{dec[leader]:+.5f}"
    return found
