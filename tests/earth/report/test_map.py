"""The map of the page."""

import json
import re

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from warte.earth.report import map as maps
from warte.earth.scene import Grid

UTM = Grid(200, 300, Affine(10, 0, 5e5, 0, -10, 5.2e6), CRS.from_epsg(32633))
PLAIN = Grid(20, 30, Affine.identity(), None)


def _facts(script: str) -> dict:
    call = re.search(r"warteMap\(document\.getElementById\(\"m\"\), (\{.*\})\);\}\)\(\);$", script)
    assert call
    return json.loads(call.group(1))


def test_side_of_a_pixel() -> None:
    # The scale of UTM at the central meridian is 0.9996: 10 m on the map are 10.004 m there.
    assert maps.metres_per_pixel(UTM) == pytest.approx(10 / 0.9996, rel=1e-4)
    degrees = Grid(100, 100, Affine(1e-3, 0, 10, 0, -1e-3, 60.05), CRS.from_epsg(4326))
    north, east = 111.412e3 * 1e-3, 55.800e3 * 1e-3  # metres per degree on the ellipsoid at 60 N
    assert maps.metres_per_pixel(degrees) == pytest.approx(np.sqrt(north * east), rel=1e-3)
    assert maps.metres_per_pixel(PLAIN) == 0


def test_longitude_and_latitude() -> None:
    net = maps.lonlat_net(UTM)
    assert net is not None
    # Easting 500 km is the central meridian of zone 33.
    assert net[0][0][0] == pytest.approx(15.0, abs=1e-7)
    assert net[0][0][1] > net[-1][0][1] and net[0][-1][0] > net[0][0][0]
    assert maps.lonlat_net(PLAIN) is None


def test_data_of_the_map() -> None:
    layer = maps.Layer("water </script>", b"\x89PNG123", 2, [("water", (1, 2, 3))], opacity=0.5)
    region = maps.Region(7, [np.array([[1.0, 2], [5, 2], [5, 9]])], "</script> no 7", "#fff")
    widget = maps.map_widget("m", UTM, [layer], [region])
    assert "</script>" not in widget.script and "</script>" not in widget.html
    facts = _facts(widget.script)
    assert facts["layers"][0]["source"].startswith("data:image/png;base64,")
    assert facts["regions"][0]["box"] == [1, 2, 5, 9]
    assert facts["regions"][0]["path"] == "M1.0 2.0L5.0 2.0L5.0 9.0Z"
    assert (facts["rows"], facts["columns"]) == (200, 300)
    assert "fetch(" not in widget.script and "http" not in widget.script
