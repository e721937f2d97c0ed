"""Clips that are made, searched and scored one by one, spread over processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.sky.clips import FPS, compressed, crowd_clip, empty_clip, faint_clip, kinds_clip
from benchmarks.sky.clips import memory_recording as recording_of
from benchmarks.sky.fourframe import FourFrameSettings, fourframe
from warte.sky.evaluate import Scores, evaluate
from warte.sky.find import find
from warte.sky.tables import Tracks

WARTE, WARTE_H264, PEER = "Warte", "Warte, H.264", "four-frame"
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Job:
    """One clip and what is to be done with it."""

    scene: Literal["faint", "crowd", "empty", "kinds"]
    seed: int
    snr: float = 0.0  # per frame; of the faint scene and the crowd
    exposure: float = 1.0  # part of a frame in which the shutter is open; of the faint scene
    methods: tuple[str, ...] = (WARTE, PEER)
    device: str = "cpu"


@dataclass(frozen=True)
class Outcome:
    """What one method made of one clip."""

    job: Job
    method: str
    scores: Scores
    speed_px: float  # pixels per frame of the only mover; NaN for other scenes


def run_jobs(jobs: Sequence[Job], workers: int, progress: Progress, step: str) -> list[Outcome]:
    """All outcomes, in the order of the jobs; each of several workers uses one core."""
    done: dict[int, list[Outcome]] = {}
    progress(step, 0, len(jobs))
    if workers <= 1:
        for number, job in enumerate(jobs):
            done[number] = run_job(job)
            progress(step, len(done), len(jobs))
    else:
        context = multiprocessing.get_context("spawn")  # a fork would copy PyTorch's threads
        with ProcessPoolExecutor(workers, context, initializer=_one_core) as pool:
            started = {pool.submit(run_job, job): number for number, job in enumerate(jobs)}
            for finished in as_completed(started):
                done[started[finished]] = finished.result()
                progress(step, len(done), len(jobs))
    return [outcome for number in range(len(jobs)) for outcome in done[number]]


def _one_core() -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def run_job(job: Job) -> list[Outcome]:
    """Make the clip, search it by each method, score what was found."""
    frames, truth = _make(job)
    speed = float(truth.tracks["speed_px_s"].iloc[0]) / FPS if job.scene == "faint" else np.nan
    outcomes = []
    for method in job.methods:
        found = _search(frames, method, job)
        name = f"{job.scene}-{job.seed}"
        scores = evaluate(found, truth, frames=len(frames), clip=name)
        outcomes.append(Outcome(job, method, scores, speed))
    return outcomes


def _make(job: Job) -> tuple[np.ndarray, Tracks]:
    if job.scene == "faint":
        return faint_clip(job.snr, job.exposure, job.seed)
    if job.scene == "crowd":
        return crowd_clip(job.snr, job.seed)
    return empty_clip(job.seed) if job.scene == "empty" else kinds_clip(job.seed)


def _search(frames: np.ndarray, method: str, job: Job) -> Tracks:
    if method == PEER:
        settings = FourFrameSettings(block=len(frames))
        return fourframe(recording_of(frames), np.random.default_rng(job.seed + 1), settings)
    seen = compressed(frames) if method == WARTE_H264 else frames
    return find(recording_of(seen), device=job.device).found
