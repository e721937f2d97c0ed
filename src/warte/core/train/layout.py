"""Which process holds what of a model: the choice, before anything is laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from warte.core.errors import SettingsError

Strategy = Literal["single", "ddp", "fsdp", "tensor", "pipeline"]
Schedule = Literal["gpipe", "1f1b", "interleaved"]
STRATEGIES: tuple[Strategy, ...] = ("single", "ddp", "fsdp", "tensor", "pipeline")
SCHEDULES: tuple[Schedule, ...] = ("gpipe", "1f1b", "interleaved")
CHUNKS = 2  # stages that each process has when they are interleaved


@dataclass(frozen=True)
class Layout:
    """Which process holds what of a model, and which samples it sees.

    The processes form a box of data x stages x tensor. Along `data` they see different samples and
    add up their gradients; along `stages` they hold different layers; along `tensor` each holds a
    part of the same layers. "ddp" and "fsdp" have as many copies along `data` as the other two
    leave; "tensor" and "pipeline" have one, and take all processes that the other one leaves.
    """

    strategy: Strategy = "single"
    devices: int = 1  # processes, one on each device (processes)
    tensor: int = 0  # processes that share each layer; 0: all with "tensor", else 1 (processes)
    stages: int = 0  # processes of a pipeline; 0: all with "pipeline", else 1 (processes)
    schedule: Schedule = "1f1b"  # order of a pipeline's forward and backward passes
    microbatches: int = 4  # pieces of each copy's share of the batch in a pipeline (pieces)

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise SettingsError(
                f"--strategy is {self.strategy}; allowed are {', '.join(STRATEGIES)}"
            )
        if self.schedule not in SCHEDULES:
            raise SettingsError(
                f"--schedule is {self.schedule}; allowed are {', '.join(SCHEDULES)}"
            )
        for flag, value, low in (
            ("--devices", self.devices, 1),
            ("--tensor", self.tensor, 0),
            ("--stages", self.stages, 0),
            ("--microbatches", self.microbatches, 1),
        ):
            if value < low:
                raise SettingsError(f"{flag} is {value}; allowed is {low} or more")
        self._check_box()
        if self.sizes[1] > 1:
            self._check_pipeline()

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Processes along data, stages and tensor."""
        tensor, stages = self.tensor or 1, self.stages or 1
        if self.strategy == "tensor" and not self.tensor:
            tensor = max(1, self.devices // stages)
        if self.strategy == "pipeline" and not self.stages:
            stages = max(1, self.devices // tensor)
        return max(1, self.devices // (tensor * stages)), stages, tensor

    @property
    def chunks(self) -> int:
        """Stages in each process of a pipeline."""
        return CHUNKS if self.schedule == "interleaved" else 1

    def _check_box(self) -> None:
        data, stages, tensor = self.sizes
        if data * stages * tensor != self.devices:
            raise SettingsError(
                f"--devices is {self.devices}, which is no multiple of --stages {stages} x "
                f"--tensor {tensor}; give {stages * tensor} or a multiple"
            )
        if self.strategy == "single" and self.devices > 1:
            raise SettingsError(
                f"--strategy single runs in one process, and --devices is {self.devices}; give "
                f"--strategy {', '.join(STRATEGIES[1:-1])} or {STRATEGIES[-1]}"
            )
        if self.strategy in ("tensor", "pipeline") and data > 1:
            raise SettingsError(
                f"--strategy {self.strategy} with --stages {stages} and --tensor {tensor} leaves "
                f"{data} copies of the model; give --strategy ddp or fsdp for those, or "
                f"--devices {stages * tensor}"
            )
        if self.strategy == "ddp" and tensor > 1:
            raise SettingsError(
                "--strategy ddp cannot copy layers that are split by --tensor; give --strategy fsdp"
            )

    def _check_pipeline(self) -> None:
        stages = self.sizes[1]
        if self.schedule == "1f1b" and self.microbatches < stages:
            raise SettingsError(
                f"--microbatches is {self.microbatches}; --schedule 1f1b needs at least as many "
                f"as --stages, {stages}"
            )
        if self.schedule == "interleaved" and self.microbatches % stages:
            raise SettingsError(
                f"--microbatches is {self.microbatches}; --schedule interleaved needs a multiple "
                f"of --stages, {stages}"
            )
