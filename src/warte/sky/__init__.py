"""Satellites, aircraft and meteors in night-sky video."""
