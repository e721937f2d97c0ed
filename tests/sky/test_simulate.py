"""Simulated recordings against closed forms, quadrature, and their own noise-free light."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.special import erf

from warte.core.errors import SettingsError
from warte.sky import presets
from warte.sky.simulate import (
    Aircraft,
    CameraSettings,
    CloudSettings,
    Flaring,
    Light,
    Meteor,
    Mover,
    Satellite,
    SceneSettings,
    Shadow,
    SimulateSettings,
    SkySettings,
    Tumbling,
    compress_h264,
    estimate_noise,
    inject,
    random_scene,
    scene_time,
    simulate,
)
from warte.sky.simulate.camera import (
    draw_clouds,
    expose,
    hot_pixels,
    pixel_noise,
    pointing,
    vignette,
)
from warte.sky.simulate.movers import (
    View,
    lamp_duty,
    light_curve,
    meteor_light,
    mover_glow,
    mover_position,
    train_glow,
)
from warte.sky.simulate.psf import add_patch, filter_loss, path_nodes, path_patch, pixel_profile
from warte.sky.simulate.stars import StarPainter, Stars, draw_stars, move_stars, twinkle
from warte.sky.tables import OBSERVATION_COLUMNS, TRACK_COLUMNS, Tracks, find_fault, write_tracks

SMALL = SimulateSettings(frames=6, width=64, height=48)
DARK = SkySettings(stars_per_mpx=0)
# Light next to without noise (none at all has no SNR): float grey levels, one per electron.
SILENT = CameraSettings(
    gain=1.0, bias=0.0, bits=0, photon_noise=False, read_noise_e=1e-6, psf_sigma_px=1.2
)


def _light(mover: Mover, frames: int, camera: CameraSettings) -> tuple[np.ndarray, Tracks]:
    """Noise-free frames of one mover on black. The SNR needs noise, so its flux is set."""
    settings = SimulateSettings(
        frames=frames,
        width=96,
        height=80,
        sky=replace(DARK, sky_e=0.0),
        camera=camera,
        movers=(replace(mover, flux=5000.0),),
    )
    return simulate(settings, np.random.default_rng(0))


def _centroid(frame: np.ndarray) -> tuple[float, float]:
    total = frame.sum(dtype=float)
    return (
        float(frame.sum(axis=0) @ np.arange(frame.shape[1])) / total,
        float(frame.sum(axis=1) @ np.arange(frame.shape[0])) / total,
    )


# The point spread function


@pytest.mark.parametrize("sigma", [0.5, 1.2])
def test_point_is_the_integral_of_a_gaussian_over_pixels(sigma: float) -> None:
    x, y = 5.3, 4.85
    patch = path_patch(np.array([x]), np.array([y]), np.ones(1), sigma)

    def gauss(v: float, u: float) -> float:
        square = ((u - x) ** 2 + (v - y) ** 2) / sigma**2
        return float(np.exp(-0.5 * square) / (2 * np.pi * sigma**2))

    for column, row in [(5, 5), (6, 4), (4, 6)]:
        want, _ = dblquad(gauss, column - 0.5, column + 0.5, row - 0.5, row + 0.5)
        got = patch.pixels[row - patch.top, column - patch.left]
        assert got == pytest.approx(want, rel=1e-6)
    assert patch.pixels.sum() == pytest.approx(1.0, abs=1e-5)


def test_trail_is_a_gaussian_swept_along_a_segment() -> None:
    """Closed form of the swept Gaussian, averaged over 20 x 20 points in each pixel."""
    sigma, length, angle, x0, y0 = 1.1, 13.0, 0.4, 20.2, 18.7
    nodes, weights = path_nodes(-0.5, 0.5, 6)
    cos, sin = np.cos(angle), np.sin(angle)
    patch = path_patch(x0 + length * cos * nodes, y0 + length * sin * nodes, weights, sigma)
    rows, columns = patch.pixels.shape
    fine = (np.arange(20) + 0.5) / 20 - 0.5
    u = (patch.left + np.arange(columns)[:, None] + fine).ravel() - x0
    v = (patch.top + np.arange(rows)[:, None] + fine).ravel() - y0
    along = u[None, :] * cos + v[:, None] * sin
    across = -u[None, :] * sin + v[:, None] * cos
    swept = (
        erf((along + length / 2) / (np.sqrt(2) * sigma))
        - erf((along - length / 2) / (np.sqrt(2) * sigma))
    ) / (2 * length)
    dense = swept * np.exp(-0.5 * (across / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)
    want = dense.reshape(rows, 20, columns, 20).mean(axis=(1, 3))
    assert np.abs(patch.pixels - want).max() < 2e-3 * want.max()
    assert patch.pixels.sum() == pytest.approx(1.0, abs=1e-3)


def test_long_paths_add_up() -> None:
    nodes, weights = path_nodes(0.0, 1.0, 150)
    patch = path_patch(400 * nodes, 30 * nodes**2, weights, 1.0)
    assert patch.pixels.sum() == pytest.approx(1.0, abs=1e-3)
    assert patch.pixels.shape[1] > 400


def test_matched_filter_loss_of_a_point() -> None:
    """A wide Gaussian has sum P^2 = 1 / (4 pi sigma^2)."""
    patch = path_patch(np.zeros(1), np.zeros(1), np.full(1, 7.0), 3.0)
    wide = np.sqrt(3.0**2 + 1 / 12)  # pixel integration widens it
    assert filter_loss(patch.pixels) == pytest.approx(1 / np.sqrt(4 * np.pi * wide**2), rel=1e-3)


def test_patch_beyond_the_border_is_lost() -> None:
    picture = np.zeros((10, 12), np.float32)
    add_patch(picture, path_patch(np.array([-0.5]), np.array([5.0]), np.ones(1), 1.0), 100.0)
    assert picture.sum() == pytest.approx(50.0, rel=1e-3)
    add_patch(picture, path_patch(np.array([400.0]), np.array([5.0]), np.ones(1), 1.0), 100.0)
    assert picture.sum() == pytest.approx(50.0, rel=1e-3)


# Stars


def _one_star(x: float, y: float) -> Stars:
    return Stars(np.array([x]), np.array([y]), np.ones(1), np.zeros(1))


def test_star_keeps_its_flux_and_place() -> None:
    painter = StarPainter((40, 30), 1.3)
    picture = painter.paint(_one_star(17.3, 12.8), DARK, np.array([500.0]), (0.0, 1.0), (0.0, 0.0))
    assert picture.sum() == pytest.approx(500.0, rel=1e-3)
    assert _centroid(picture) == pytest.approx((17.3, 12.8), abs=0.01)


def test_stars_drift_turn_and_grow_as_stated() -> None:
    sky = SkySettings(
        drift_x=0.5,
        drift_y=-0.25,
        rotation_deg=2.0,
        rotation_x=-30,
        rotation_y=10,
        scale_change=1e-3,
    )
    x, y = move_stars(sky, np.array([70.0]), np.array([10.0]), 10.0, (200, 200))
    radius, angle = 100 * 1.001**10, np.deg2rad(20)
    assert x[0] == pytest.approx(-30 + radius * np.cos(angle) + 5.0)
    assert y[0] == pytest.approx(10 + radius * np.sin(angle) - 2.5)


def test_painted_stars_follow_drift_and_trail() -> None:
    sky = SkySettings(drift_x=4.0, stars_per_mpx=0)
    painter = StarPainter((80, 30), 1.2)
    flux = np.array([1e4])
    for frame in (0, 5):
        picture = painter.paint(
            _one_star(20, 14), sky, flux, (frame - 0.5, frame + 0.5), (0.25, 0.0)
        )
        assert picture.sum() == pytest.approx(1e4, rel=1e-3)
        assert _centroid(picture) == pytest.approx((20.25 + 4 * frame, 14), abs=0.01)
        spread = picture.sum(axis=0) @ (np.arange(80) - 20.25 - 4 * frame) ** 2 / picture.sum()
        assert spread == pytest.approx(1.2**2 + 1 / 12 + 4**2 / 12, rel=0.01)


def test_star_counts_follow_the_brightness_law() -> None:
    sky = SkySettings(stars_per_mpx=50_000, star_slope=1.3)
    stars = draw_stars(sky, np.zeros(1), (1000, 1000), 0.0, np.random.default_rng(1))
    assert len(stars.x) == pytest.approx(50_000, rel=0.02)
    for bright in (3.0, 10.0):
        share = (stars.snr > bright).mean()
        assert share == pytest.approx(bright**-1.3, rel=0.05)


def test_drifting_field_stays_full() -> None:
    sky = SkySettings(drift_x=2.0, rotation_deg=0.5, stars_per_mpx=20_000)
    rng = np.random.default_rng(2)
    times = np.linspace(0, 100, 50)
    stars = draw_stars(sky, times, (200, 150), 0.0, rng)
    for time in (0.0, 50.0, 100.0):
        x, y = move_stars(sky, stars.x, stars.y, time, (200, 150))
        inside = ((x > 0) & (x < 199) & (y > 0) & (y < 149)).sum()
        assert inside == pytest.approx(20_000 * 0.03, rel=0.15)


def test_scintillation_has_the_stated_spread_and_memory() -> None:
    sky = SkySettings(scintillation=0.3, scintillation_frames=4.0)
    rng = np.random.default_rng(3)
    none = np.zeros(40_000)
    stars = Stars(none, none, none, rng.standard_normal(40_000))
    first, second = twinkle(stars, sky, rng), twinkle(stars, sky, rng)
    assert second.mean() == pytest.approx(1.0, abs=0.01)
    assert second.std() == pytest.approx(0.3, rel=0.03)
    assert np.corrcoef(np.log(first), np.log(second))[0, 1] == pytest.approx(
        np.exp(-1 / 4), abs=0.01
    )


# The camera


@pytest.mark.parametrize("sky_e", [5.0, 300.0])  # exact Poisson, and its Gaussian
def test_noise_has_the_variance_of_the_model(sky_e: float) -> None:
    camera = CameraSettings(read_noise_e=4.0, gain=0.4, bias=20.0, bits=8)
    sky = np.full((300, 300), sky_e, np.float32)
    grey = expose(sky, camera, np.random.default_rng(4)).astype(float)
    assert grey.mean() == pytest.approx(20 + 0.4 * sky_e, abs=0.1)
    assert grey.std() == pytest.approx(0.4 * pixel_noise(camera, sky_e), rel=0.01)


def test_noise_after_gamma_has_the_variance_of_the_model() -> None:
    camera = CameraSettings(gain=0.2, bias=8.0, gamma=2.2, bits=8)
    settings = replace(SMALL, frames=40, sky=DARK, camera=camera, movers=(Satellite(x=30, y=20),))
    frames, truth = simulate(settings, np.random.default_rng(5))
    point = path_patch(np.zeros(1), np.zeros(1), np.ones(1), 1.2)  # 2 px/frame trails widen this
    errors = truth.observations["flux_err"]
    assert errors.min() > frames[:, :10].std() / filter_loss(point.pixels)
    still = replace(settings, movers=(Satellite(x=30, y=30, vx=0.0),))
    frames, truth = simulate(still, np.random.default_rng(5))
    want = frames[:, :15].std() / filter_loss(point.pixels)
    assert truth.observations["flux_err"].median() == pytest.approx(want, rel=0.03)


@pytest.mark.parametrize(("bits", "dtype"), [(0, "float32"), (8, "uint8"), (16, "uint16")])
def test_bits(bits: int, dtype: str) -> None:
    camera = CameraSettings(bits=bits, gain=1e4)
    frames, _ = simulate(replace(SMALL, frames=2, camera=camera), np.random.default_rng(0))
    assert frames.dtype == dtype
    if bits:
        assert frames.max() == 2**bits - 1


def test_vignetting_gradient_and_hot_pixels() -> None:
    share = vignette(CameraSettings(vignetting=0.4), (41, 31))
    assert share[15, 20] == pytest.approx(1.0)
    assert share[0, 0] == pytest.approx(0.6)
    sky = replace(DARK, gradient_x=0.5, gradient_y=0.0)
    frames, _ = simulate(replace(SMALL, sky=sky, camera=SILENT), np.random.default_rng(0))
    assert frames[0, 0, -1] / frames[0, 0, 0] == pytest.approx(1.25 / 0.75)
    hot = hot_pixels(CameraSettings(hot_fraction=0.02), (300, 200), np.random.default_rng(1))
    assert hot is not None
    assert (hot > 0).mean() == pytest.approx(0.02, rel=0.15)
    assert hot[hot > 0].mean() == pytest.approx(200.0, rel=0.15)
    assert hot_pixels(CameraSettings(), (30, 20), np.random.default_rng(1)) is None


def test_pointing_walks_jitters_and_jolts() -> None:
    rng = np.random.default_rng(6)
    assert not pointing(CameraSettings(), 50, rng).any()
    walk = pointing(CameraSettings(walk_px=0.2), 5000, rng)
    assert np.diff(walk, axis=0).std() == pytest.approx(0.2, rel=0.05)
    jitter = pointing(CameraSettings(jitter_px=0.3), 5000, rng)
    assert jitter.std() == pytest.approx(0.3, rel=0.05)
    jolts = pointing(CameraSettings(jolt_rate=0.01, jolt_px=5.0), 5000, rng)
    assert np.abs(jolts).max() > 3
    assert np.median(np.abs(jolts)) < 0.1


def test_shake_moves_stars_and_movers_together() -> None:
    camera = replace(SILENT, jitter_px=2.0)
    frames, truth = _light(Satellite(frame=0, x=40, y=40, vx=0.0), 20, camera)
    assert truth.observations["x"].std() > 1
    for _, row in truth.observations.iterrows():
        assert _centroid(frames[int(row.frame)]) == pytest.approx((row.x, row.y), abs=0.02)


def test_clouds_dim_and_move_with_the_wind() -> None:
    settings = CloudSettings(opacity=1.0, size_px=40, vx=3.0, vy=0.0)
    clouds = draw_clouds(settings, (200, 100), np.random.default_rng(7))
    before, after = (clouds.transparency(time, (200, 100)) for time in (0.0, 10.0))
    assert 0 < before.min() < 0.6
    assert before.max() == pytest.approx(1.0)
    assert np.abs(after[:, 30:] - before[:, :-30]).max() < 0.02  # 3 px/frame for 10 frames
    assert np.abs(clouds.transparency(1e5, (200, 100))).max() <= 1.0


def test_clouds_take_light_from_movers() -> None:
    sky = replace(DARK, clouds=CloudSettings(opacity=2.0, size_px=20, glow=0.0))
    settings = replace(SMALL, frames=25, sky=sky, movers=(Satellite(frame=12, x=30, y=32),))
    _, truth = simulate(settings, np.random.default_rng(8))
    snr = truth.observations["flux"] / truth.observations["flux_err"]
    assert snr.max() <= 10.0 + 1e-6
    assert snr.min() < 5.0


# Movers


def test_snr_is_that_of_a_matched_filter() -> None:
    """The ideal filter, run over many noisy frames, measures the asked SNR and the stated error."""
    settings = replace(
        SMALL,
        frames=2500,
        sky=DARK,
        movers=(Satellite(frame=1250, x=30.4, y=22.7, vx=0.0, snr=6.0),),
    )
    trail = path_patch(np.array([30.4]), np.array([22.7]), np.ones(1), 1.2)
    frames, truth = simulate(settings, np.random.default_rng(9))
    rows, columns = trail.pixels.shape
    part = frames[:, trail.top : trail.top + rows, trail.left : trail.left + columns]
    quiet = frames[:, 2 : 2 + rows, 2 : 2 + columns]
    weight = trail.pixels / np.sum(trail.pixels**2)
    background = quiet.mean()
    measured = ((part - background) * weight).sum(axis=(1, 2))
    empty = ((quiet - background) * weight).sum(axis=(1, 2))
    truth_flux = truth.observations["flux"].iloc[0]
    truth_err = truth.observations["flux_err"].iloc[0]
    assert truth_flux / truth_err == pytest.approx(6.0)
    assert empty.std() == pytest.approx(truth_err, rel=0.05)
    assert measured.mean() == pytest.approx(truth_flux, rel=0.03)
    assert measured.mean() / empty.std() == pytest.approx(6.0, rel=0.05)


def test_trailed_snr_counts_the_trail() -> None:
    fast = Satellite(frame=2, x=30, y=20, vx=9.0, snr=5.0)
    for exposure in (0.0, 1.0):
        camera = CameraSettings(exposure=exposure)
        settings = replace(SMALL, frames=4, sky=DARK, camera=camera, movers=(fast,))
        _, truth = simulate(settings, np.random.default_rng(0))
        snr = truth.observations["flux"] / truth.observations["flux_err"]
        assert snr.to_numpy() == pytest.approx(5.0)
        nodes, weights = path_nodes(-0.5 * exposure, 0.5 * exposure, 8)
        trail = path_patch(9 * nodes, 0 * nodes, weights, camera.psf_sigma_px)
        want = 0.2 * pixel_noise(camera, 100.0) / filter_loss(trail.pixels)
        assert truth.observations["flux_err"].to_numpy() == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize(
    "mover",
    [
        Satellite(frame=5, x=45, y=40, vx=2.3, vy=-1.1, ax=0.05, ay=0.02),
        Satellite(frame=5, x=45, y=40, vx=3.0, light=(Flaring(frame=5, width=2, height=4),)),
        Meteor(frame=2.2, x=25, y=30, vx=9, vy=3, duration=5, deceleration=0.05),
        Aircraft(frame=5, x=45, y=40, vx=1.5, lights=(Light(-6, 2), Light(5, -3, brightness=2))),
    ],
)
@pytest.mark.parametrize("exposure", [0.0, 1.0])
def test_truth_is_the_centroid_and_sum_of_the_light(mover: Mover, exposure: float) -> None:
    frames, truth = _light(mover, 10, replace(SILENT, exposure=exposure))
    assert len(truth.observations) >= 4
    for _, row in truth.observations.iterrows():
        frame = frames[int(row.frame)]
        assert _centroid(frame) == pytest.approx((row.x, row.y), abs=0.02)
        assert frame.sum(dtype=float) == pytest.approx(row.flux, rel=1e-3, abs=0.05)
    dark = sorted(set(range(10)) - set(truth.observations["frame"]))
    assert np.abs(frames[dark]).max(initial=0.0) < 0.01


def test_light_curves() -> None:
    times = np.linspace(0, 100, 1001)
    tumble = light_curve((Tumbling(period=20, depth=0.9, sharpness=3),), times)
    assert tumble.max() == pytest.approx(1.0)
    assert tumble.min() == pytest.approx(0.1)
    assert tumble[0] == pytest.approx(tumble[200])
    flare = light_curve((Flaring(frame=40, width=5, height=3),), times)
    assert flare[400] == pytest.approx(4.0)
    assert flare[0] == pytest.approx(1.0)
    assert flare[450] == pytest.approx(1 + 3 * np.exp(-0.5))
    into = light_curve((Shadow(frame=50, fade=20),), times)
    assert (into[399], into[500], into[601]) == pytest.approx((1, 0.5, 0))
    out = light_curve((Shadow(frame=50, fade=20, leaving=True),), times)
    assert into + out == pytest.approx(1.0)
    assert light_curve((), times) == pytest.approx(1.0)
    meteor = meteor_light(Meteor(frame=10, duration=20, peak=0.7), times)
    assert meteor.max() == pytest.approx(1.0)
    assert times[meteor.argmax()] == pytest.approx(24.0)
    assert not meteor[times < 10].any()
    assert not meteor[times > 30].any()


def test_satellite_in_shadow_has_no_truth() -> None:
    mover = Satellite(frame=0, x=20, y=20, vx=1, light=(Shadow(frame=10, fade=4),))
    _, truth = simulate(replace(SMALL, frames=20, movers=(mover,)), np.random.default_rng(0))
    assert truth.tracks["start_frame"].tolist() == [0]
    assert truth.tracks["end_frame"].tolist() == [12]


def test_satellite_enters_and_leaves() -> None:
    mover = Satellite(frame=0, x=-20, y=20, vx=4.0)
    _, truth = simulate(replace(SMALL, frames=40, movers=(mover,)), np.random.default_rng(0))
    track = truth.tracks.iloc[0]
    assert (track.start_frame, track.end_frame) == (5, 20)
    assert (track.x0_px, track.x1_px) == pytest.approx((0.0, 60.0))
    assert track.speed_px_s == pytest.approx(100.0)
    assert track.angle_deg == 0.0
    assert track.snr_track == pytest.approx(10 * np.sqrt(16))
    assert track.start_utc == "2024-08-12T22:00:00.200000Z"


def test_strobes_flash_for_their_share_of_the_time() -> None:
    lamp = Light(period=25, flash=1.5, double=5.0)
    duty = [lamp_duty(lamp, frame - 0.5, frame + 0.5) for frame in range(100)]
    assert sum(duty) == pytest.approx(4 * 2 * 1.5, abs=1.0)
    assert max(duty) == pytest.approx(1.0)
    assert np.flatnonzero(duty[:25]).tolist() == [0, 1, 5, 6]
    assert lamp_duty(lamp, 5.5, 5.5) == 1.0
    assert lamp_duty(lamp, 3.0, 3.0) == 0.0
    assert lamp_duty(Light(), 3.0, 4.0) == 1.0


def test_aircraft_is_one_track_through_dark_frames() -> None:
    strobes = (Light(period=10, flash=1.0, brightness=5),)
    plane = Aircraft(frame=10, x=30, y=20, vx=1.0, lights=strobes)
    _, truth = simulate(replace(SMALL, frames=25, movers=(plane,)), np.random.default_rng(0))
    assert truth.tracks["kind"].tolist() == ["aircraft"]
    assert set(truth.observations["frame"]) == {0, 1, 10, 11, 20, 21}
    assert truth.observations["x"].to_numpy() == pytest.approx(
        20.0 + truth.observations["frame"].to_numpy()
    )


def test_meteor_slows_and_leaves_a_train() -> None:
    meteor = Meteor(frame=0, x=0, y=0, vx=10, vy=0, duration=10, deceleration=0.05, train=0.3)
    x, _ = mover_position(meteor, np.array([0.0, 5.0, 10.0]))
    assert x == pytest.approx([0.0, 50 - 0.25 * 25, 75.0])
    view = View((200, 100))
    assert mover_glow(meteor, 12, view) is None
    trains = [train_glow(replace(meteor, y=50.0), frame, view) for frame in (12, 22)]
    early, late = (0.0 if train is None else float(train.pixels.sum()) for train in trains)
    assert late == pytest.approx(early * np.exp(-1.0), rel=1e-6)
    assert train_glow(replace(meteor, train=0.0), 12, view) is None


# Playback


def test_scene_time_is_the_integral_of_the_playback_factor() -> None:
    knots = ((10.0, 1.0), (20.0, 4.0), (40.0, 4.0), (45.0, 64.0))
    frames = np.linspace(-5, 60, 66)
    factor = np.interp(np.linspace(0, 60, 600_001), *np.array(knots).T)
    table = np.concatenate([[0], np.cumsum((factor[1:] + factor[:-1]) / 2) * 1e-4])
    late = frames >= 0
    want = np.interp(frames[late], np.linspace(0, 60, 600_001), table)
    assert scene_time(knots, frames)[late] == pytest.approx(want, abs=1e-3)
    assert scene_time(knots, -5.0) == pytest.approx(-5.0)
    assert scene_time((), 7.0) == 7.0
    assert scene_time(((30.0, 2.0),), 7.0) == pytest.approx(14.0)


def test_fast_playback_moves_and_trails_everything_more() -> None:
    mover = Satellite(frame=0, x=10, y=20, vx=0.5, vy=0.0)
    settings = SimulateSettings(
        frames=10, width=200, height=40, sky=DARK, movers=(mover,), playback=((0, 8.0),)
    )
    _, truth = simulate(settings, np.random.default_rng(0))
    assert np.diff(truth.observations["x"]) == pytest.approx(4.0)
    _, slow = simulate(replace(settings, playback=()), np.random.default_rng(0))
    assert truth.observations["flux_err"].min() > 1.1 * slow.observations["flux_err"].max()


# Whole recordings


def test_same_seed_same_data() -> None:
    settings = replace(presets.demo(), frames=3, width=120, height=90)
    one, truth = simulate(settings, np.random.default_rng(11))
    two, again = simulate(settings, np.random.default_rng(11))
    other, _ = simulate(settings, np.random.default_rng(12))
    assert np.array_equal(one, two)
    assert truth.observations.equals(again.observations)
    assert not np.array_equal(one, other)


def test_nothing_at_all() -> None:
    settings = replace(SMALL, sky=DARK, start_utc="")
    _, truth = simulate(settings, np.random.default_rng(0))
    assert list(truth.tracks.columns) == TRACK_COLUMNS
    assert list(truth.observations.columns) == OBSERVATION_COLUMNS
    assert len(truth.tracks) == len(truth.observations) == 0
    assert find_fault(truth) is None


def test_mover_out_of_sight_has_no_track() -> None:
    movers = (Satellite(x=-900, y=0, vx=0.0), Satellite(frame=0, x=9, y=9))
    _, truth = simulate(replace(SMALL, movers=movers, start_utc=""), np.random.default_rng(0))
    assert truth.tracks["track_id"].tolist() == [1]
    assert truth.tracks["start_utc"].tolist() == [""]


@pytest.mark.parametrize("seed", range(30))
def test_random_scenes_are_valid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = SceneSettings(frames=5, width=72, height=56, bits=(8, 16, 0)[seed % 3], ramp_chance=0.4)
    settings = random_scene(rng, scene)
    frames, truth = simulate(settings, rng)
    assert frames.shape == (5, 56, 72)
    assert np.isfinite(frames.astype(float)).all()
    assert frames.std() > 0
    assert (frames >= settings.camera.white).mean() < 0.2
    assert len(truth.tracks) <= len(settings.movers) <= 5
    assert find_fault(truth) is None


def test_random_scenes_hold_every_kind() -> None:
    rng = np.random.default_rng(0)
    kinds = [type(mover) for _ in range(60) for mover in random_scene(rng).movers]
    for kind, low in ((Satellite, 0.4), (Aircraft, 0.1), (Meteor, 0.1)):
        assert np.mean([k is kind for k in kinds]) > low


def test_presets(tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    for settings, kinds in (
        (presets.demo(), {"satellite", "aircraft", "meteor"}),
        (presets.faint(1.0, rng=rng), {"satellite"}),
        (presets.kinds(rng), {"satellite", "aircraft", "meteor"}),
        (presets.codec(), {"satellite", "meteor"}),
        (presets.empty(), set()),
    ):
        assert {type(mover).__name__.lower() for mover in settings.movers} == kinds
        short = replace(settings, frames=2, width=96, height=64)
        _, truth = simulate(short, rng)
        write_tracks(truth, tmp_path)
    assert presets.empty().frames == 100


def test_faint_preset_stays_in_view() -> None:
    rng = np.random.default_rng(14)
    for speed in (None, 0.3, 15.0):
        settings = presets.faint(2.0, speed, rng=rng)
        mover = settings.movers[0]
        assert isinstance(mover, Satellite)
        pace = np.hypot(mover.vx, mover.vy)
        assert 0.299999 < pace < 15.000001
        if speed is not None:
            assert pace == pytest.approx(speed)
        assert abs(mover.x - 319.5) <= 128
        assert abs(mover.y - 239.5) <= 96
        assert mover.frame == 49.5
    with pytest.raises(SettingsError, match="speed"):
        presets.faint(1.0, -3.0, rng=rng)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: CameraSettings(bits=12), "bits"),
        (lambda: CameraSettings(exposure=1.5), "exposure"),
        (lambda: CameraSettings(psf_sigma_px=float("nan")), "psf_sigma_px"),
        (lambda: SkySettings(sky_e=-1), "sky_e"),
        (lambda: SkySettings(star_limit_snr=10, star_brightest_snr=5), "star_brightest_snr"),
        (lambda: Satellite(snr=-1), "satellite.snr"),
        (lambda: Satellite(flux=float("inf")), "satellite.flux"),
        (lambda: Aircraft(lights=()), "lights"),
        (lambda: Light(period=2.0, flash=3.0), "flash"),
        (lambda: Meteor(duration=10, deceleration=0.2), "deceleration"),
        (lambda: SimulateSettings(frames=0), "frames"),
        (lambda: SimulateSettings(start_utc="yesterday"), "start_utc"),
        (lambda: SimulateSettings(playback=((5, 1), (5, 2))), "playback"),
        (
            lambda: SimulateSettings(camera=replace(SILENT, read_noise_e=0), movers=(Satellite(),)),
            "noise",
        ),
        (lambda: SceneSettings(snr_low=5, snr_high=1), "snr_low"),
        (lambda: SceneSettings(speed_low=0), "speed_low"),
        (lambda: SceneSettings(satellites=0.9, aircraft=0.3), "aircraft"),
        (lambda: SceneSettings(max_movers=-1), "max_movers"),
    ],
)
def test_bad_settings_name_the_field(make: Callable[[], object], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


# The codec, and real recordings


def test_h264_loses_little_at_low_crf_and_more_at_high() -> None:
    settings = replace(presets.demo(), frames=8, width=97, height=63)  # odd sizes too
    frames, _ = simulate(settings, np.random.default_rng(15))
    lossless, fine, coarse = (compress_h264(frames, 25, crf) for crf in (0, 18, 40))
    assert lossless.dtype == np.uint8
    assert np.array_equal(lossless, frames)
    loss = [np.abs(out.astype(float) - frames).mean() for out in (fine, coarse)]
    assert 0 < loss[0] < loss[1] < 5
    with pytest.raises(SettingsError, match="uint8"):
        compress_h264(frames.astype(np.float32))
    with pytest.raises(SettingsError, match="crf"):
        compress_h264(frames, crf=70)


def _recording(seed: int, sigma: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(30.0, sigma, (60, 64, 80))
    return np.rint(noise).astype(np.uint8)


def test_noise_of_a_recording() -> None:
    frames = _recording(16)
    frames[20:22, 10:14, 10:14] = 200  # something that passes
    noise = estimate_noise(frames[:32])
    assert noise.shape == (64, 80)
    assert noise == pytest.approx(np.sqrt(4 + 1 / 12), rel=0.1)
    frozen = np.full((5, 32, 32), 7, np.uint8)
    assert estimate_noise(frozen) == pytest.approx(1 / np.sqrt(12))
    with pytest.raises(ValueError, match="at least 2"):
        estimate_noise(frozen[:1])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_injected_light_is_what_the_truth_says(dtype: str) -> None:
    frames = _recording(17).astype(dtype)
    mover = Satellite(frame=30, x=40.0, y=30.0, vx=0.5, vy=0.1, snr=4.0)
    out, truth = inject(frames, (mover,), np.random.default_rng(0), saturation=255.0)
    assert out.dtype == frames.dtype
    assert np.array_equal(out, np.rint(out))
    added = out.astype(float) - frames
    seen = truth.observations
    assert len(seen) == 60
    assert (seen["flux"] / seen["flux_err"]).to_numpy() == pytest.approx(4.0)
    # Light is well under a level per pixel in each frame, but kept on average.
    assert added.sum() == pytest.approx(seen["flux"].sum(), rel=0.05)
    x, y = _centroid(added.sum(axis=0))
    assert (x, y) == pytest.approx((seen["x"].mean(), seen["y"].mean()), abs=0.5)
    untouched, none = inject(frames, (), np.random.default_rng(0))
    assert np.array_equal(untouched, frames)
    assert len(none.tracks) == 0


def test_injected_light_clips_at_white() -> None:
    frames = np.full((4, 32, 32), 250, np.uint8)
    mover = Satellite(frame=2, x=16, y=16, vx=0.0, flux=1e5)
    out, _ = inject(frames, (mover,), np.random.default_rng(0))
    assert out.max() == 255
    assert out[0, 0, 0] == 250
    low, _ = inject(frames, (mover,), np.random.default_rng(0), saturation=240)
    assert np.array_equal(low, frames)  # already beyond it


def test_profile_of_a_pixel_is_an_erf_difference() -> None:
    profile = pixel_profile(np.array([2.0]), np.array([0]), 5, 1.0)
    assert profile.sum() == pytest.approx(erf(2.5 / np.sqrt(2)))
    assert profile[0, 2] == pytest.approx(erf(0.5 / np.sqrt(2)))


def test_quiet_scenes_have_little_noise_and_blinking_satellites_go_dark() -> None:
    rng = np.random.default_rng(11)
    settings = SceneSettings(frames=6, max_movers=4, satellites=1.0, aircraft=0.0)
    settings = replace(settings, quiet_chance=1.0, blink_chance=1.0)
    scenes = [random_scene(rng, settings) for _ in range(20)]
    blinks = [curve for s in scenes for m in s.movers for curve in m.light[-1:]]
    assert len(blinks) == sum(len(s.movers) for s in scenes) > 10
    assert all(isinstance(b, Tumbling) and b.depth >= 0.7 and b.period <= 6 for b in blinks)
    for scene in scenes[:5]:
        dark = replace(scene, movers=(), sky=replace(scene.sky, stars_per_mpx=0, clouds=None))
        dark = replace(dark, camera=replace(dark.camera, gamma=1.0, hot_fraction=0.0))
        frames, _ = simulate(dark, np.random.default_rng(0))
        assert np.diff(frames.astype(float), axis=0).std() / np.sqrt(2) < 1.2
    with pytest.raises(SettingsError, match="blink_chance"):
        SceneSettings(blink_chance=1.5)
