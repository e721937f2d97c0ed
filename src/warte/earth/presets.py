"""Full settings of simulated scenes by name. Each function returns SimulateSettings."""

from __future__ import annotations

from dataclasses import replace

from warte.earth.simulate import (
    AnomalySettings,
    BorderSettings,
    Event,
    GroundSettings,
    SimulateSettings,
    SkySettings,
    display,
    landsat_7,
    sentinel_1,
    sentinel_2,
    spectrometer,
    terrasar_x,
)

CLEAR_SKY = SkySettings(cover=(0.0, 0.0), cirrus=0.0, haze=(0.03, 0.06))


def fields() -> SimulateSettings:
    """Fields, woods and villages in early summer, ten Sentinel-2 bands, next to no clouds."""
    return SimulateSettings(sky=replace(CLEAR_SKY, cover=(0.0, 0.05)), detail=2)


def coast() -> SimulateSettings:
    """Sea, beach, marsh and fields; a rotated swath whose fill no tag names, as 8 bit numbers."""
    ground = GroundSettings(sea=0.35, river_m=60.0, towns=0.4)
    return SimulateSettings(
        ground=ground,
        sensors=(replace(display(), pixel_m=10.0),),
        sky=CLEAR_SKY,
        border=BorderSettings(12.0, tagged=False),
        detail=2,
    )


def city() -> SimulateSettings:
    """One large town from the air, 5 m, red, green, blue and near infrared of 8 bits."""
    ground = GroundSettings(
        width_m=2560.0, height_m=2560.0, towns=1.0, town_radius_m=2500.0, forest=0.1, river_m=60.0
    )
    return SimulateSettings(ground=ground, sensors=(display(),), sky=CLEAR_SKY, detail=2)


def clouds() -> SimulateSettings:
    """The six bands that Sentinel-2 and Landsat 7 share, four dates, many clouds and shadows."""
    sentinel = sentinel_2()
    shared = tuple(
        band
        for band in sentinel.bands
        if band.name in ("blue", "green", "red", "nir", "swir16", "swir22")
    )
    return SimulateSettings(
        ground=GroundSettings(width_m=7680.0, height_m=7680.0, relief_m=60.0),
        sensors=(replace(sentinel, bands=shared), landsat_7()),
        dates=("2024-04-10", "2024-06-20", "2024-08-25", "2024-10-15"),
        sky=SkySettings(cover=(0.15, 0.6), cirrus=0.5, haze=(0.02, 0.35), top_of_atmosphere=True),
    )


def radar() -> SimulateSettings:
    """Sentinel-1 (VV, VH, dB) and a TerraSAR-X-like picture (HH, amplitudes) of one ground."""
    return SimulateSettings(
        ground=GroundSettings(width_m=3072.0, height_m=3072.0),
        sensors=(sentinel_1(), terrasar_x()),
        sky=CLEAR_SKY,
    )


def series() -> SimulateSettings:
    """Three years of Sentinel-2, 23 dates a year, with felling, a fire, a building and a flood."""
    dates = tuple(
        f"{year}-{month:02d}-{day:02d}"
        for year in (2021, 2022, 2023)
        for month in range(1, 13)
        for day in ((4, 20) if month != 12 else (4,))
    )
    events = (
        Event("deforestation", "2022-03-10", radius_m=300.0),
        Event("burn", "2022-08-02", radius_m=250.0),
        Event("building", "2021-10-05", radius_m=160.0),
        Event("flood", "2023-05-12", radius_m=100.0, days=20.0),
    )
    return SimulateSettings(
        ground=GroundSettings(width_m=2560.0, height_m=2560.0, forest=0.35),
        dates=dates,
        events=events,
        sky=SkySettings(cover=(0.0, 0.6)),
    )


def flood() -> SimulateSettings:
    """A radar pair: before a flood and in it."""
    return SimulateSettings(
        sensors=(sentinel_1(),),
        dates=("2024-05-03T05:20", "2024-05-15T05:20"),
        events=(Event("flood", "2024-05-12", radius_m=350.0, days=12.0),),
        ground=GroundSettings(river_m=120.0),
        sky=CLEAR_SKY,
    )


def hyperspectral() -> SimulateSettings:
    """150 bands of 4 m, 128 x 128 pixels, with a dozen small things that do not belong."""
    return SimulateSettings(
        ground=GroundSettings(
            width_m=512.0, height_m=512.0, towns=0.3, lakes=0.0, field_m=(60.0, 140.0), wetland=0.2
        ),
        sensors=(spectrometer(),),
        sky=CLEAR_SKY,
        anomalies=AnomalySettings(12, (3.0, 12.0)),
        detail=2,
    )


def large(pixels: int = 10_000) -> SimulateSettings:
    """A picture of `pixels` x `pixels` in ten bands, for measuring memory and time."""
    side = 10.0 * pixels
    return SimulateSettings(
        ground=GroundSettings(width_m=side, height_m=side), border=BorderSettings(8.0)
    )
