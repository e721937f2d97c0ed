"""The card of a model: what it was trained on, what it needs, how good it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from warte.core.errors import InputError
from warte.earth.classify.inputs import Inputs
from warte.earth.scene import Quantity, Scene

CARD = "model.json"
WEIGHTS = "model.safetensors"
FORMAT = 1  # of the card; raised when an older reader could not use a newer model

Method = Literal["unet", "patch", "boosting"]
# Distinct colours for classes that bring none (red, green, blue).
COLOURS = (
    (31, 119, 180), (44, 160, 44), (214, 39, 40), (255, 187, 120), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
    (152, 223, 138), (255, 127, 14), (174, 199, 232), (197, 176, 213), (255, 152, 150),
    (219, 219, 141),
)  # fmt: skip


@dataclass(frozen=True)
class Card:
    """What a model is.

    method: how it classifies. classes: names, in the order of its outputs. colours: of each class.
    quantity: what the numbers of its scenes mean. inputs: what is made of the bands. network:
    shape of the network, empty for boosting. temperature, offsets: calibration: probabilities are
    softmax(logits / temperature + offsets). limits: for each band the 0.1 % and 99.9 % quantiles
    of the pixels that it learned from. held_out: figures on groups that it did not learn from,
    and their confusion. data: what it learned from. settings: of the training.
    """

    method: Method
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    quantity: Quantity
    inputs: Inputs
    network: Mapping[str, int]
    temperature: float
    offsets: tuple[float, ...]
    limits: Mapping[str, tuple[float, float]]
    held_out: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands that the model needs, in its order."""
        return self.inputs.bands

    def write(self, folder: Path) -> None:
        """Write the card into a folder."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2, allow_nan=False)
        (folder / CARD).write_text(text + "\n", encoding="utf-8")

    def check(self, scene: Scene) -> None:
        """Whether the model can be used on a scene.

        Raises:
            InputError: bands are missing, or the numbers mean something else.
        """
        missing = [band for band in self.bands if band not in scene.bands]
        if missing:
            raise InputError(
                f"{scene.name} lacks what the model learned from: {', '.join(missing)}; it has "
                f"{', '.join(scene.bands)}; give a scene with these bands or train on its own"
            )
        if scene.quantity != self.quantity:
            raise InputError(
                f"{scene.name} holds {_WORDS[scene.quantity]}, the model learned from "
                f"{_WORDS[self.quantity]}; bring the scene to the same quantity first"
            )


_WORDS = {
    "reflectance": "reflectance",
    "sigma0_db": "sigma nought in dB",
    "radiance": "radiance",
    "number": "plain numbers without scale",
}


def read_card(folder: Path) -> Card:
    """The card of the model in a folder.

    Raises:
        InputError: there is none, or it is damaged or of a newer program.
    """
    path = folder / CARD
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        version = facts.pop("format")
        if version != FORMAT:
            raise InputError(
                f"{path} is of format {version}, this program reads {FORMAT}; "
                "update warte or train again"
            )
        return _card(facts)
    except OSError as problem:
        raise InputError(
            f"{folder} holds no model: cannot read {CARD}; give the folder that "
            "`warte earth train` made"
        ) from problem
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InputError(
            f"{path} is damaged ({type(problem).__name__}); train the model again"
        ) from problem


def _card(facts: dict[str, Any]) -> Card:
    inputs = facts["inputs"]
    tuples = ("bands", "radii", "centre", "scale")
    inputs = {key: tuple(value) if key in tuples else value for key, value in inputs.items()}
    return Card(
        method=cast(Method, facts["method"]),
        classes=tuple(facts["classes"]),
        colours=tuple((int(r), int(g), int(b)) for r, g, b in facts["colours"]),
        quantity=facts["quantity"],
        inputs=Inputs(**inputs),
        network=facts["network"],
        temperature=float(facts["temperature"]),
        offsets=tuple(map(float, facts["offsets"])),
        limits={band: (float(low), float(high)) for band, (low, high) in facts["limits"].items()},
        held_out=facts["held_out"],
        data=facts["data"],
        settings=facts["settings"],
    )


def colours_of(count: int) -> tuple[tuple[int, int, int], ...]:
    """A colour for each of so many classes; they repeat after 16."""
    return tuple(COLOURS[index % len(COLOURS)] for index in range(count))
