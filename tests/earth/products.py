"""Tiny products in the true formats, after the public specifications that `read` names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

UTM = CRS.from_epsg(32633)
CORNER = (500_000.0, 5_300_000.0)  # metres east and north, of the upper left pixel


def write_picture(
    path: Path, values: npt.ArrayLike, step: float = 10.0, crs: CRS | None = UTM, **options: Any
) -> Path:
    """A picture (bands, rows, columns) whose upper left corner is CORNER."""
    values = np.asarray(values)
    values = values[None] if values.ndim == 2 else values
    descriptions = options.pop("descriptions", ())
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        "driver": "GTiff", "count": values.shape[0], "height": values.shape[1],
        "width": values.shape[2], "dtype": values.dtype, "crs": crs,
        "transform": Affine(step, 0, CORNER[0], 0, -step, CORNER[1]), **options,
    }  # fmt: skip
    with rasterio.open(path, "w", **settings) as file:
        file.write(values)
        for number, text in enumerate(descriptions, 1):
            file.set_band_description(number, text)
    return path


def sentinel2(
    folder: Path, bands: Mapping[str, Any], *, level: str = "1C", offset: int | None = -1000,
    scl: npt.ArrayLike | None = None,
) -> Path:  # fmt: skip
    """A SAFE folder. bands: from "02" to (metres, numbers)."""
    root = folder / f"S2B_MSIL{level}_20240607T100559_N0510_R022_T33UUP_20240607T121212.SAFE"
    images = root / "GRANULE/L1C_T33UUP_A037876_20240607T100610/IMG_DATA"
    for band, (metres, numbers) in bands.items():
        name = f"T33UUP_20240607T100559_B{band}"
        place = images / (f"{name}.jp2" if level == "1C" else f"R{metres}m/{name}_{metres}m.jp2")
        write_picture(place, np.asarray(numbers, np.uint16), float(metres), driver="JP2OpenJPEG",
                      QUALITY="100", REVERSIBLE="YES")  # fmt: skip
    if scl is not None:
        place = images / "R20m/T33UUP_20240607T100559_SCL_20m.jp2"
        write_picture(place, np.asarray(scl, np.uint8), 20.0, driver="JP2OpenJPEG",
                      QUALITY="100", REVERSIBLE="YES")  # fmt: skip
    if level == "1C":
        amount, kind = "<QUANTIFICATION_VALUE unit='none'>10000</QUANTIFICATION_VALUE>", "RADIO"
        group = "Radiometric_Offset_List"
    else:
        amount = ("<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit='none'>10000"
                  "</BOA_QUANTIFICATION_VALUE><AOT_QUANTIFICATION_VALUE unit='none'>1000"
                  "</AOT_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>")  # fmt: skip
        kind, group = "BOA", "BOA_ADD_OFFSET_VALUES_LIST"
    offsets = "" if offset is None else "".join(
        f'<{kind}_ADD_OFFSET band_id="{band}">{offset}</{kind}_ADD_OFFSET>' for band in range(13)
    )  # fmt: skip
    (root / f"MTD_MSIL{level}.xml").write_text(
        f'<?xml version="1.0"?><n1:Level-{level}_User_Product xmlns:n1="https://psd-14.sentinel2.'
        f'eo.esa.int/PSD/User_Product_Level-{level}.xsd"><n1:General_Info><Product_Info>'
        "<PRODUCT_START_TIME>2024-06-07T10:05:59.024Z</PRODUCT_START_TIME></Product_Info>"
        f"<Product_Image_Characteristics>{amount}<{group}>{offsets}</{group}>"
        f"</Product_Image_Characteristics></n1:General_Info></n1:Level-{level}_User_Product>"
    )
    return root


def landsat(folder: Path, bands: Mapping[str, Any], qa: npt.ArrayLike, *, level: str = "L2SP",
            text: bool = False) -> Path:  # fmt: skip
    """A Landsat 8 folder. bands: from "4" to numbers; "10" is thermal."""
    root = folder / f"LC08_{level}_190027_20240607_20240615_02_T1"
    contents: dict[str, Any] = {"PROCESSING_LEVEL": level, "COLLECTION_NUMBER": "02"}
    for band, numbers in bands.items():
        thermal = band == "10" and level[:2] == "L2"
        suffix = f"ST_B{band}" if thermal else f"{'SR_' * (level[:2] == 'L2')}B{band}"
        key = f"FILE_NAME_BAND_{'ST_B' * thermal}{band}"
        contents[key] = f"{root.name}_{suffix}.TIF"
        write_picture(root / contents[key], np.asarray(numbers, np.uint16), 30.0)
    contents["FILE_NAME_QUALITY_L1_PIXEL"] = f"{root.name}_QA_PIXEL.TIF"
    write_picture(root / contents["FILE_NAME_QUALITY_L1_PIXEL"], np.asarray(qa, np.uint16), 30.0)
    groups = {
        "PRODUCT_CONTENTS": contents,
        "IMAGE_ATTRIBUTES": {
            "SPACECRAFT_ID": "LANDSAT_8", "SENSOR_ID": "OLI_TIRS", "DATE_ACQUIRED": "2024-06-07",
            "SCENE_CENTER_TIME": "09:53:14.1234567Z", "SUN_ELEVATION": "30.0",
        },
        "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": {
            **{f"REFLECTANCE_MULT_BAND_{n}": "2.75e-05" for n in range(1, 8)},
            **{f"REFLECTANCE_ADD_BAND_{n}": "-0.2" for n in range(1, 8)},
        },
        "LEVEL2_SURFACE_TEMPERATURE_PARAMETERS": {
            "TEMPERATURE_MULT_BAND_ST_B10": "0.00341802", "TEMPERATURE_ADD_BAND_ST_B10": "149.0",
        },
        "LEVEL1_RADIOMETRIC_RESCALING": {
            **{f"REFLECTANCE_MULT_BAND_{n}": "2.0E-05" for n in range(1, 10)},
            **{f"REFLECTANCE_ADD_BAND_{n}": "-0.1" for n in range(1, 10)},
            "RADIANCE_MULT_BAND_10": "3.8E-04", "RADIANCE_ADD_BAND_10": "0.1",
        },
        "LEVEL1_THERMAL_CONSTANTS": {
            "K1_CONSTANT_BAND_10": "799.0284", "K2_CONSTANT_BAND_10": "1329.2405",
        },
    }  # fmt: skip
    if text:
        lines = ["GROUP = LANDSAT_METADATA_FILE"]
        for name, group in groups.items():
            inner = [f'    {key} = "{value}"' for key, value in group.items()]
            lines += [f"  GROUP = {name}", *inner, f"  END_GROUP = {name}"]
        (root / f"{root.name}_MTL.txt").write_text("\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END"]))  # fmt: skip # noqa: E501
    else:
        whole = {"LANDSAT_METADATA_FILE": groups}
        (root / f"{root.name}_MTL.json").write_text(json.dumps(whole))
    return root


def sentinel1(folder: Path, numbers: npt.ArrayLike, amplitude: npt.ArrayLike,
              noise: npt.ArrayLike) -> Path:  # fmt: skip
    """A ground range SAFE folder of VV, north up, 10 m; A and noise at the four corners."""
    root = folder / "S1A_IW_GRDH_1SDV_20240607T165500_20240607T165525_054231_0698F2_1A2B.SAFE"
    stem = "s1a-iw-grd-vv-20240607t165500-20240607t165525-054231-0698f2-001"
    numbers = np.asarray(numbers, np.uint16)
    rows, columns = numbers.shape
    from rasterio.warp import transform

    points = []
    for row in (0, rows // 2, rows):
        for column in (0, columns // 2, columns):
            x, y = CORNER[0] + 10 * column, CORNER[1] - 10 * row
            (lon,), (lat,) = transform(UTM, CRS.from_epsg(4326), [x], [y])
            points.append(GroundControlPoint(row, column, lon, lat, 0.0))
    place = root / "measurement" / f"{stem}.tiff"
    place.parent.mkdir(parents=True)
    with rasterio.open(place, "w", driver="GTiff", count=1, height=rows, width=columns,
                       dtype="uint16", gcps=points, crs=CRS.from_epsg(4326)) as file:  # fmt: skip
        file.write(numbers, 1)
    (root / "manifest.safe").write_text("<xfdu/>")
    calibration = root / "annotation" / "calibration"
    calibration.mkdir(parents=True)
    (root / "annotation" / f"{stem}.xml").write_text(
        "<product><adsHeader><startTime>2024-06-07T16:55:00.123456</startTime></adsHeader>"
        "<imageInformation><rangePixelSpacing>1.000000e+01</rangePixelSpacing>"
        "<azimuthPixelSpacing>1.000000e+01</azimuthPixelSpacing></imageInformation></product>"
    )

    def vectors(kind: str, value: str, table: npt.ArrayLike) -> str:
        return "".join(
            f"<{kind}><line>{line}</line><pixel count='2'>0 {columns - 1}</pixel>"
            f"<{value} count='2'>{' '.join(str(n) for n in row)}</{value}></{kind}>"
            for line, row in zip((0, rows - 1), np.asarray(table), strict=True)
        )

    (calibration / f"calibration-{stem}.xml").write_text(
        f"<calibration>{vectors('calibrationVector', 'sigmaNought', amplitude)}</calibration>"
    )
    (calibration / f"noise-{stem}.xml").write_text(
        f"<noise>{vectors('noiseRangeVector', 'noiseRangeLut', noise)}<noiseAzimuthVector>"
        f"<firstAzimuthLine>0</firstAzimuthLine><lastAzimuthLine>{rows - 1}</lastAzimuthLine>"
        f"<firstRangeSample>0</firstRangeSample><lastRangeSample>{columns - 1}</lastRangeSample>"
        f"<line count='2'>0 {rows - 1}</line><noiseAzimuthLut count='2'>1.0 2.0</noiseAzimuthLut>"
        "</noiseAzimuthVector></noise>"
    )
    return root


def terrasar(folder: Path, numbers: npt.ArrayLike, *, factor: float, angles: npt.ArrayLike,
             noise: npt.ArrayLike = (0.0,)) -> Path:  # fmt: skip
    """A detected product of HH. angles: incidence at the four corners (degrees)."""
    name = "TDX1_SAR__MGD_SE___SM_S_SRA_20240607T051200_20240607T051208"
    root = folder / name
    numbers = np.asarray(numbers, np.uint16)
    rows, columns = numbers.shape
    write_picture(root / "IMAGEDATA/IMAGE_HH_SRA_strip_007.tif", numbers, 3.0)
    angles = np.asarray(angles, float)
    corners = "".join(
        f"<sceneCornerCoord name='c'><refRow>{1 + i * (rows - 1)}</refRow><refColumn>"
        f"{1 + j * (columns - 1)}</refColumn><lat>0</lat><lon>0</lon>"
        f"<incidenceAngle>{angles[i, j]}</incidenceAngle></sceneCornerCoord>"
        for i in (0, 1)
        for j in (0, 1)
    )
    coefficients = "".join(
        f"<coefficient exponent='{power}'>{value}</coefficient>"
        for power, value in enumerate(np.asarray(noise))
    )
    (root / f"{name}.xml").write_text(
        "<level1Product><generalHeader/><productComponents><imageData layerIndex='1'><polLayer>HH"
        "</polLayer><file><location><path>IMAGEDATA</path><filename>IMAGE_HH_SRA_strip_007.tif"
        "</filename></location></file></imageData></productComponents><productInfo><missionInfo>"
        "<mission>TDX-1</mission></missionInfo><sceneInfo><start><timeUTC>2024-06-07T05:12:00.5Z"
        "</timeUTC></start><rangeTime><firstPixel>0.004</firstPixel><lastPixel>0.005</lastPixel>"
        f"</rangeTime>{corners}</sceneInfo></productInfo><calibration><calibrationConstant "
        f"layerIndex='1'><calFactor>{factor}</calFactor></calibrationConstant></calibration>"
        "<noise layerIndex='1'><imageNoise><noiseEstimate><referencePoint>0.004</referencePoint>"
        f"{coefficients}</noiseEstimate></imageNoise></noise></level1Product>"
    )
    return root
