"""`python -m benchmarks.sky.memory FRAMES`: search a stream, print the peak memory in MiB."""

import resource
import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np

from benchmarks.sky.clips import FPS, SEED0
from warte.sky.find import find
from warte.sky.read import Recording

SIZE = (480, 640)  # rows, columns


def stream(frames: int) -> Recording:
    """Fixed stars under noise, each frame drawn when it is asked for."""
    rng = np.random.default_rng(SEED0 + 900_000)
    sky = np.full(SIZE, 30.0, np.float32)
    for x, y in rng.uniform(5, np.array(SIZE[::-1]) - 6, (250, 2)):
        rows, columns = np.mgrid[round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5]
        spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 1.2**2))
        sky[rows, columns] += rng.uniform(5, 100) * spot

    def source(start: int) -> Generator[tuple[np.ndarray, float], None, None]:
        for index in range(start, frames):
            noise = np.random.default_rng([SEED0, index]).standard_normal(SIZE, dtype=np.float32)
            yield np.clip(np.rint(sky + 2.0 * noise), 0, 255), index / FPS

    return Recording(
        path=Path("stream"), width=SIZE[1], height=SIZE[0], frame_count=frames, fps=FPS,
        start_utc=None, levels=1.0, saturation=255.0, source=source,
    )  # fmt: skip


def main() -> None:
    """Search the stream and print the largest resident size of this process."""
    find(stream(int(sys.argv[1])))
    print(peak_mib())


def peak_mib() -> float:
    """Largest resident size of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would remember the process that started this one
        line = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # bytes on macOS


if __name__ == "__main__":
    main()
