"""Pieces that are one mover are joined, and nothing else is."""

import numpy as np
import pytest

from warte.sky.find.fit import Fit
from warte.sky.find.join import Track, blinks, group_lamps, join, merge, same_mover, track_of


def track(
    frames: "range | np.ndarray",
    at: tuple[float, float],
    way: tuple[float, float],
    rng: np.random.Generator,
    *,
    snr: float | np.ndarray = 8.0,
    error: float = 0.1,
) -> Track:
    """A track that is at ``at`` in frame 0 and moves by ``way`` a frame, with its errors."""
    t = np.array(frames)
    n = len(t)
    light = snr + rng.normal(0, 1, n)
    return Track(
        frame=t,
        x=at[0] + way[0] * t + rng.normal(0, error, n),
        y=at[1] + way[1] * t + rng.normal(0, error, n),
        x_err=np.full(n, error),
        y_err=np.full(n, error),
        snr=light,
        flux=10 * light,
        flux_err=np.full(n, 10.0),
        trail=0.0,
    )


def test_pieces_of_overlapping_windows_are_one() -> None:
    rng = np.random.default_rng(0)
    a = track(range(100), (10, 20), (2, 1), rng)
    b = track(range(80, 180), (10, 20), (2, 1), rng, error=0.02)
    (one,) = join([b, a])
    assert one.frame.tolist() == list(range(180))
    # in the frames of both the better one is kept
    np.testing.assert_array_equal(one.x[80:], b.x)
    np.testing.assert_array_equal(one.x[:80], a.x[:80])


@pytest.mark.parametrize("gap", [1, 10, 35])
def test_a_gap_is_bridged(gap: int) -> None:
    rng = np.random.default_rng(1)
    a = track(range(30), (10, 20), (2, 1), rng)
    b = track(range(29 + gap, 60 + gap), (10, 20), (2, 1), rng)
    (one,) = join([a, b])
    assert len(one.frame) == 61


def test_what_does_not_lead_on_stays_apart() -> None:
    rng = np.random.default_rng(2)
    a = track(range(30), (10, 20), (2, 1), rng)
    others = [
        track(range(40, 70), (10, 35), (2, 1), rng),  # beside
        track(range(40, 70), (250, 140), (-2, -1), rng),  # back
        track(range(150, 180), (10, 20), (2, 1), rng),  # after too long
        track(range(40, 70), (110, 70), (2, 1), rng),  # too far ahead
        track(range(33, 36), (10, 20), (2, 1), rng),  # too short to tell
    ]
    for other in others:
        assert not same_mover(a, other) and not same_mover(other, a)


def test_crossing_tracks_stay_two() -> None:
    rng = np.random.default_rng(3)
    a = track(range(60), (40, 70), (2, 1), rng)
    b = track(range(60), (40, 130), (2, -1), rng)  # both are at (100, 100) in frame 30
    assert len(join([a, b])) == 2


def test_a_playback_that_speeds_up_is_followed() -> None:
    rng = np.random.default_rng(4)
    a = track(range(40), (10, 20), (0.5, 0.25), rng)
    b = track(range(45, 80), (30 - 45 * 2 + 5, 30 - 45 + 2.5), (2, 1), rng)
    (one,) = join([a, b])
    assert len(one.frame) == 75


def test_steady_satellites_in_a_train_stay_apart() -> None:
    rng = np.random.default_rng(5)
    train = [track(range(60), (10 - 20 * k, 20 - 10 * k), (2, 1), rng) for k in range(3)]
    assert [one.lamps for one in join(train)] == [1, 1, 1]


def test_a_blinking_pair_is_one_aircraft() -> None:
    rng = np.random.default_rng(6)
    strobe = np.where(np.arange(60) % 12 < 2, 60.0, 4.0)
    steady = track(range(60), (10, 20), (2, 1), rng, snr=12.0)
    flashing = track(range(60), (16, 28), (2, 1), rng, snr=strobe)
    assert blinks(flashing) and not blinks(steady)
    (one,) = join([steady, flashing])
    assert one.lamps == 2
    assert one.frame.tolist() == list(range(60))
    # between the lamps, and with the light of both
    share = flashing.flux.mean() / (steady.flux.mean() + flashing.flux.mean())
    np.testing.assert_allclose(one.x.mean(), steady.x.mean() + 6 * share, atol=0.1)
    np.testing.assert_allclose(one.flux.sum(), steady.flux.sum() + flashing.flux.sum())
    np.testing.assert_allclose(one.snr, one.flux / one.flux_err)


def test_a_path_between_lamps_and_one_that_ends_astray_are_the_aircrafts() -> None:
    rng = np.random.default_rng(26)
    left = track(range(80), (10, 20), (2, 1), rng)
    right = track(range(80), (6, 28), (2, 1), rng)
    # at the left lamp first, at the right one in the end
    t = np.arange(60)
    side = np.clip((t - 24) / 12, 0, 1)
    stray = track(t, (10, 20), (2, 1), rng)
    stray.x[:] += -4 * side
    stray.y[:] += 8 * side
    flash = track(range(70, 73), (22, 44), (2, 1), rng, snr=30.0)
    astray = track(range(40), (14, 12), (2, 1), rng)
    astray.x[37:] += [2.0, 4.0, 7.0]
    (one,) = group_lamps([left, right, stray, flash, astray])
    assert one.lamps == 4  # the stray path is none of its own
    # one that leaves the lamps flies alone
    turned = track(range(60), (10, 20), (1, 2), rng)
    assert len(group_lamps([left, right, turned])) == 2


def test_what_flies_otherwise_is_no_lamp() -> None:
    rng = np.random.default_rng(7)
    strobe = np.where(np.arange(60) % 12 < 2, 60.0, 4.0)
    aircraft = track(range(60), (10, 20), (2, 1), rng, snr=strobe)
    turned = track(range(60), (16, 28), (2.2, 0.8), rng)
    far = track(range(60), (10, 90), (2, 1), rng)
    later = track(range(61, 110), (16, 28), (2, 1), rng)
    assert len(group_lamps([aircraft, turned, far, later])) == 4


def test_noise_and_tumbling_do_not_blink() -> None:
    rng = np.random.default_rng(8)
    t = np.arange(80)
    tumbling = 10 * (1.05 - np.cos(2 * np.pi * t / 40))
    for snr in (2.0, 8.0, tumbling):
        assert not blinks(track(range(80), (0, 0), (1, 1), rng, snr=snr))
    assert not blinks(track(range(3), (0, 0), (1, 1), rng, snr=np.array([0.0, 90.0, 0.0])))


def test_merging_keeps_each_frame_once() -> None:
    rng = np.random.default_rng(9)
    a = track(range(0, 40, 2), (0, 0), (1, 1), rng)
    b = track(range(15, 60, 3), (0, 0), (1, 1), rng)
    both = merge(a, b)
    assert both.frame.tolist() == sorted({*a.frame.tolist(), *b.frame.tolist()})
    assert len(both.flux) == len(both.x_err) == len(both.frame)


def test_order_and_nothing() -> None:
    rng = np.random.default_rng(10)
    late = track(range(50, 90), (300, 20), (1, 1), rng)
    early = track(range(10, 30), (10, 200), (1, -1), rng)
    assert [one.frame[0] for one in join([late, early])] == [10, 50]
    assert join([]) == []


def test_a_fit_becomes_a_track() -> None:
    fit = Fit(*(np.full(3, float(k)) for k in range(10)), 7.0, 1.0)
    got = track_of(fit)
    assert (got.x[0], got.y[0], got.x_err[0], got.y_err[0]) == (1, 2, 3, 4)
    assert (got.snr[0], got.flux[0], got.flux_err[0], got.trail, got.lamps) == (7, 8, 9, 1, 1)


def test_three_steady_lights_abreast_are_an_aircraft_and_in_a_row_a_train() -> None:
    rng = np.random.default_rng(21)
    abreast = [track(range(60), at, (2, 0), rng) for at in ((10, 20), (12, 30), (12, 10))]
    (one,) = group_lamps(abreast)
    assert one.lamps == 3
    row = [track(range(60), at, (2, 0), rng) for at in ((10, 20), (25, 20), (40, 20))]
    assert len(group_lamps(row)) == 3


def test_a_meteors_glowing_train_is_no_track_of_its_own() -> None:
    rng = np.random.default_rng(22)
    meteor = track(range(10), (100, 50), (-3, 0.2), rng, snr=300.0)
    glow = track(range(8, 24), (80, 51.5), (0.3, 0.0), rng, snr=80.0)
    assert len(join([meteor, glow])) == 1
    slow = track(range(8, 24), (80, 71.5), (0.3, 0.0), rng, snr=80.0)
    assert len(join([meteor, slow])) == 2


def test_pieces_that_fill_each_others_gaps_are_one() -> None:
    rng = np.random.default_rng(23)
    ends = np.r_[0:30, 60:90]
    a = track(ends, (10, 20), (2, 1), rng)
    b = track(range(31, 59), (10, 20), (2, 1), rng)
    (one,) = join([a, b])
    assert len(one.frame) == 88
    beside = track(range(31, 59), (10, 32), (2, 1), rng)
    assert len(join([a, beside])) == 2
