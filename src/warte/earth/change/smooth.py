"""Noise taken out of pictures without blurring their edges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch

EDGE = 4.0  # mean squared difference of neighbours, in noise variances, that halves their weight
OFFSET = 0.2  # pixels by which dates may still lie beside each other


@dataclass(frozen=True)
class Smoothed:
    """What `smoothed` gives.

    white, raw: the means, 0 where not seen. doubt: (..., rows, columns) 1 and more: by how much the
    noise of the place exceeds that of flat ground.
    """

    white: torch.Tensor
    raw: torch.Tensor
    doubt: torch.Tensor


def smoothed(
    white: torch.Tensor, raw: torch.Tensor, seen: torch.Tensor, radius: int = 1
) -> Smoothed:
    """Each pixel's mean with those of its neighbours that look alike at all dates.

    white: (..., dates, bands, rows, columns) with noise of unit variance, 0 where not seen. raw:
    numbers of the same dates, which are averaged with the same weights. seen: (..., dates, rows,
    columns). radius: of the square of neighbours (pixels). A neighbour's weight falls with the mean
    squared difference over what both saw, d: (1 + d / EDGE)^-2. So neither a border on the ground
    nor one of a change is washed out. Where the ground is uneven at every date, a small shift
    between the dates looks like a change: the doubt is sqrt(1 + (OFFSET * slope)^2).
    """
    mask = seen[..., None, :, :].to(white.dtype)
    both_kinds = torch.cat([white, raw.to(white.dtype) * mask], -3)
    bands = white.shape[-3]
    total, weights = torch.zeros_like(both_kinds), torch.zeros_like(mask)
    slope, count = torch.zeros_like(mask), torch.zeros_like(mask)
    for down, right in product(range(-radius, radius + 1), repeat=2):
        beside, there = shifted(both_kinds, down, right), shifted(mask, down, right)
        both = mask * there
        apart = ((beside - both_kinds)[..., :bands, :, :] ** 2).sum(-3, keepdim=True) * both / bands
        likeness = apart.sum(-4, keepdim=True) / both.sum(-4, keepdim=True).clamp(min=1)
        weight = (1 + likeness / EDGE) ** -2 * there
        total += weight * beside
        weights += weight
        if abs(down) + abs(right) == 1:
            slope += apart
            count += both
    mean = total / weights.clamp(min=1e-30) * mask
    # The evenest date counts: a border that came or went is a change, not a doubt.
    uneven = torch.where(count > 0, slope / count.clamp(min=1), torch.inf)[..., 0, :, :]
    least = uneven.amin(-3)
    least = torch.where(torch.isfinite(least), least, 0)
    doubt = torch.sqrt(1 + OFFSET**2 * least)
    return Smoothed(mean[..., :bands, :, :], mean[..., bands:, :, :], doubt)


def shifted(values: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """(..., rows, columns) moved by whole pixels; 0 comes in from outside."""
    rows, columns = values.shape[-2:]
    moved = torch.zeros_like(values)
    to_rows = slice(max(0, -down), min(rows, rows - down))
    from_rows = slice(max(0, down), min(rows, rows + down))
    to_columns = slice(max(0, -right), min(columns, columns - right))
    from_columns = slice(max(0, right), min(columns, columns + right))
    moved[..., to_rows, to_columns] = values[..., from_rows, from_columns]
    return moved
