"""Satellite pictures with exact truth: one ground, seen by several sensors on several dates."""

from warte.earth.simulate.files import Written, anomaly_polygons, label_polygons, simulate_to
from warte.earth.simulate.ground import CLASSES, COLOURS, Ground, draw_ground
from warte.earth.simulate.optical import CLEAR, CLOUD, SHADOW
from warte.earth.simulate.scene import Simulated, Truth, simulate
from warte.earth.simulate.sensors import (
    Band,
    Radar,
    Sensor,
    display,
    landsat_7,
    landsat_8,
    sentinel_1,
    sentinel_2,
    spectrometer,
    terrasar_x,
)
from warte.earth.simulate.settings import (
    KINDS,
    AnomalySettings,
    BorderSettings,
    Event,
    GroundSettings,
    SimulateSettings,
    SkySettings,
)
from warte.earth.simulate.sky import Sky, Sun, sun_at

__all__ = [
    "CLASSES",
    "CLEAR",
    "CLOUD",
    "COLOURS",
    "KINDS",
    "SHADOW",
    "AnomalySettings",
    "Band",
    "BorderSettings",
    "Event",
    "Ground",
    "GroundSettings",
    "Radar",
    "Sensor",
    "SimulateSettings",
    "Simulated",
    "Sky",
    "SkySettings",
    "Sun",
    "Truth",
    "Written",
    "anomaly_polygons",
    "display",
    "draw_ground",
    "label_polygons",
    "landsat_7",
    "landsat_8",
    "sentinel_1",
    "sentinel_2",
    "simulate",
    "simulate_to",
    "spectrometer",
    "sun_at",
    "terrasar_x",
]  # fmt: skip
