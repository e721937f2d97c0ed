"""Which sums of a region stand out, and what lies before and after them on the same paths.

By PyTorch, which a GPU runs; on a CPU, `compiled` does the same several times faster.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from warte.sky.find import compiled
from warte.sky.find.compiled import TILE
from warte.sky.find.tier import Region, Tier, path_way, strips
from warte.sky.find.velocity import SIDE, Frames, Patch, VelocityTree

CHUNK = 4096  # paths that are followed at once


class Hits(NamedTuple):
    """Sums of one block of frames over the threshold, and their paths. Arrays of length n.

    ``start``: first frame of the block; ``y``, ``x``: place in its middle (cells of `Frames`);
    ``velocity`` index (n, 2: iy, ix); ``score`` in the steps of the sums.
    """

    start: Tensor
    y: Tensor
    x: Tensor
    velocity: Tensor
    score: Tensor

    def take(self, which: Tensor) -> Hits:
        """Those at ``which``."""
        return Hits(*(column[which] for column in self))


class Mates(NamedTuple):
    """For each of n hits the best sum over as many frames before or after, on the same path.

    ``sums`` in the units of the hits' scores, 0 where there is none; ``velocity`` index (n, 2);
    ``side`` in time, +1 or -1.
    """

    sums: Tensor
    velocity: Tensor
    side: Tensor


def look(
    tree: VelocityTree, tier: Tier, region: Region, starts: list[int], limit: float
) -> tuple[Hits, Mates]:
    """Sums of the blocks of frames from ``starts`` on that reach ``limit``, each the best of its
    place and tile, and their mates."""
    if not strips(tree.frames, region):
        none = torch.zeros(0, dtype=torch.long, device=tree.frames.device)
        hit = Hits(none, none, none, none.view(0, 2), none)
        return hit, Mates(none.float(), hit.velocity, none)
    if tree.frames.device.type == "cpu":
        return look_compiled(tree, tier, region, starts, limit)
    return look_by_tensors(tree, tier, region, starts, limit)


def look_by_tensors(
    tree: VelocityTree, tier: Tier, region: Region, starts: list[int], limit: float
) -> tuple[Hits, Mates]:
    """`look` by PyTorch."""
    parts = [
        judge(tree, tier, region, start, rows, limit)
        for start in starts
        for rows in strips(tree.frames, region)
    ]
    hit = Hits(*(torch.cat(column) for column in zip(*parts, strict=True)))
    return hit, partners(tree, tier, region, hit)


def look_compiled(
    tree: VelocityTree, tier: Tier, region: Region, starts: list[int], limit: float
) -> tuple[Hits, Mates]:
    """`look` by `compiled`."""
    frames, rows = tree.frames, strips(tree.frames, region)
    places = (tree.lines.shape[1], frames.line, frames.pad)
    grid = compiled.Grid(*places, frames.count, frames.height, frames.width)
    rows_of_pairs = tree.pair_rows(tier.level, region.y0, region.x0)
    square = compiled.Square(tier.level, region.y0, region.x0, rows_of_pairs)
    cuts = np.array([rows[0][0], *(row[1] for row in rows)])
    cells = np.diff(cuts) * frames.width
    layouts = [compiled.layout(tier.level, SIDE, frames.width, n) for n in cells.tolist()]
    shapes = np.array([shape for shape, _ in layouts]).reshape(len(rows), tier.level, -1, 4)
    room = tree.room("strip", max(size for _, size in layouts)).numpy()
    lines = tree.lines.numpy()
    found = compiled.look(
        *(lines, grid, square, np.array(starts), cuts, shapes, region.tiles, region.held),
        *(float(limit), ceil(limit), room, int(cells.max())),
    )
    image = np.zeros(len(found), np.int64)
    if tier.trail:
        vy, vx = trail_key(found[:, 3:5], tier).T
        for wy in np.unique(vy).tolist():
            for wx in np.unique(vx).tolist():
                some = (vy == wy) & (vx == wx)
                if some.any():
                    image[some] = tree.row(wy, wx)
    ways = np.stack([path_way(corner, tier.level) for corner in (region.y0, region.x0)])
    mate = torch.from_numpy(compiled.partners(lines, grid, square, found, image, ways)).long()
    start, y, x, iy, ix, score = torch.from_numpy(found).long().T
    hit = Hits(start, y, x, torch.stack([iy, ix], 1), score)
    return hit, Mates(mate[:, 0].float(), mate[:, 1:3], mate[:, 3])


def trail_key(velocity: np.ndarray, tier: Tier) -> np.ndarray:
    """Motion (cells per frame, (n, 2)) of the trailed frames that paths with velocity indices (n,
    2) are followed in: some of those that their region uses."""
    return 2 * np.round(velocity * [1, tier.stretch] / 2**tier.level).astype(int)


def hits(best: Tensor, limit: int, width: int) -> tuple[Tensor, Tensor]:
    """Tiles and places where the best sums (tiles, cells) int8 reach ``limit`` and are as high as
    around them, each (n,); overwrites ``best``. ``width``: of the picture.

    Sums below ``limit`` - 128 do not occur among the best of a tile.
    """
    flat = best.view(-1)
    whole = len(flat) // 8 * 8
    flat += 128 - limit  # reaching the limit overflows into the sign bit
    packs = (flat[:whole].view(torch.int64) & -0x7F7F7F7F7F7F7F80).nonzero()
    inside = (packs * 8 + torch.arange(8, device=best.device)).view(-1)
    inside = torch.cat([inside, torch.arange(whole, len(flat), device=best.device)])
    inside = inside[flat.index_select(0, inside) < 0]
    inside = inside[is_peak(flat.view(torch.uint8), inside, width, best.shape[1])]
    tile = inside // best.shape[1]
    return tile, inside - tile * best.shape[1]


def is_peak(flat: Tensor, at: Tensor, width: int, cells: int) -> Tensor:
    """Whether ``flat`` (strips of ``cells``, pictures of ``width`` as one line, uint8) is at ``at``
    (n,) as high as around it: the neighbours of a peak lead to the same path."""
    beside = [dy * width + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    near = at + torch.tensor(beside, device=at.device)[:, None]
    near = torch.where(near // cells == at // cells, near, at)  # not of another tile
    around = flat.index_select(0, near.view(-1)).view(near.shape)
    return (around <= flat.index_select(0, at)).all(dim=0)


def judge(
    tree: VelocityTree, tier: Tier, region: Region, start: int, rows: tuple[int, int], limit: float
) -> Hits:
    """Sums of a strip and the block of frames from ``start`` on that reach ``limit``, each with its
    own velocity."""
    frames = tree.frames
    lower = tree.halves(tier.level, region.y0, region.x0, start, rows)
    best = tree.room("best", len(region.tiles), lower.size)
    room = tree.room("tile", TILE // 2 * (TILE + 1) * lower.size)
    for number, (y0, x0) in enumerate(region.tiles.tolist()):
        torch.amax(lower.best(y0, x0, TILE, room), 0, out=best[number])
    tile, place = hits(best, ceil(limit), frames.width)
    score, index = own_velocity(lower, region, tile, place)
    y, x = place // frames.width + rows[0], place % frames.width
    hit = Hits(torch.full_like(y, start), y, x, index, score)
    return hit.take((score >= limit) & inside(frames, y, x, index))


def own_velocity(
    lower: Patch, region: Region, tile: Tensor, place: Tensor
) -> tuple[Tensor, Tensor]:
    """The best sum at each of the places (n,) over the velocities of its tile that are the tier's:
    sums (n,) int16 and indices (n, 2)."""
    device, half = place.device, TILE // 2
    corner = torch.from_numpy(region.tiles).to(device)[tile]  # (n, 2)
    number = torch.arange(half + 1, device=device)
    hy, hx = (corner[:, k] // 2 for k in (0, 1))
    hy, hx = hy[:, None, None] + number[:, None], hx[:, None, None] + number
    at = place[:, None, None]
    first = lower.values(-1, at, hy[:, :half], hx[..., :half])
    second = lower.values(1, at, hy, hx)
    every = torch.arange(TILE, device=device)
    low, high = every // 2, every - every // 2
    sums = first[:, low][:, :, low] + second[:, high][:, :, high]  # (n, TILE, TILE)
    sums = torch.where(torch.from_numpy(region.held).to(device)[tile], sums, -1000)
    score, which = sums.flatten(1).max(dim=1)
    return score, corner + torch.stack([which // TILE, which % TILE], 1)


def inside(frames: Frames, y: Tensor, x: Tensor, index: Tensor) -> Tensor:
    """Whether each path lies in the picture from an eighth of its length before its middle to an
    eighth behind."""
    ok = torch.ones_like(y, dtype=torch.bool)
    for at, i, size in ((y, index[..., 0], frames.height), (x, index[..., 1], frames.width)):
        for centre in (at, at - i // 4, at + i // 4):
            ok = ok & (centre >= 0) & (centre < size)
    return ok


def partners(tree: VelocityTree, tier: Tier, region: Region, hit: Hits) -> Mates:
    """For each hit the best sum of as many frames before or after, on the same path.

    A path of twice the length with index ``i`` has halves with indices a and b, a + b = i and
    |a - b| <= 1, whose centres are ``i`` cells apart.
    """
    device, number = hit.y.device, len(hit.y)
    near = torch.cartesian_prod(*[torch.arange(-1, 2, device=device)] * 2)
    table = path_table(tree.frames, region, tier.level)
    best = torch.zeros(number, device=device)
    other, side = hit.velocity.clone(), torch.ones_like(hit.y)
    for some in torch.arange(number, device=device).split(CHUNK):
        part = hit.take(some)
        mate = part.velocity[:, None] + near  # (n, 9, 2)
        row = (mate[..., 0] - region.y0 + 1) * (SIDE + 2) + mate[..., 1] - region.x0 + 1
        for sign in (1, -1):
            value, which = follow(tree, tier, part, sign, mate, table[row])
            better = value > best[some]
            best[some] = torch.where(better, value, best[some])
            chosen = mate[torch.arange(len(some), device=device), which]
            other[some] = torch.where(better[:, None], chosen, other[some])
            side[some] = torch.where(better, sign, side[some])
    return Mates(best, other, side)


def follow(
    tree: VelocityTree, tier: Tier, hit: Hits, sign: int, mate: Tensor, way: Tensor
) -> tuple[Tensor, Tensor]:
    """The best sum of the block before (``sign`` -1) or after (1) each hit, and which of ``mate``
    (n, m, 2) it has for its index; 0 where none lies in the picture. ``way``: rows of
    `path_table`."""
    frames, length = tree.frames, 2**tier.level
    apart = sign * (hit.velocity[:, None] + mate)
    y, x, start = hit.y[:, None] + apart[..., 0], hit.x[:, None] + apart[..., 1], hit.start
    start = start + sign * length
    ok = ((start >= 0) & (start <= frames.count - length))[:, None] & inside(frames, y, x, mate)
    middle = start[:, None] * frames.line + frames.pad + y * frames.width + x
    middle = torch.where(ok, middle, frames.pad).int()
    at = way + middle[..., None]  # (n, m, length)
    total = torch.empty(ok.shape, device=y.device)
    vy, vx = torch.from_numpy(trail_key(hit.velocity.cpu().numpy(), tier)).to(y.device).T
    for wy in vy.unique().tolist():
        for wx in vx.unique().tolist():
            some = torch.nonzero((vy == wy) & (vx == wx))[:, 0]
            if len(some):
                light = tree.image(wy, wx).index_select(0, at[some].view(-1))
                total[some] = light.view(len(some), -1, length).sum(-1, dtype=torch.float32)
    return torch.where(ok, total, 0.0).max(dim=1)


def path_table(frames: Frames, region: Region, level: int) -> Tensor:
    """Where paths of ``2**level`` frames lie in the lines of `Frames`, from the first frame and the
    middle place on, (k, 2**level) int32: for all velocities of the region and one beyond each way.
    """
    rows, columns = (
        torch.from_numpy(path_way(corner, level)).to(frames.device)
        for corner in (region.y0, region.x0)
    )
    time = torch.arange(2**level, device=frames.device, dtype=torch.int32) * frames.line
    return (rows[:, None] * frames.width + columns + time).flatten(0, 1)
