"""Metadata of products: XML without its namespaces, Landsat's lists, numbers that must be there."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from warte.core.errors import InputError
from warte.earth.read.files import DAMAGE, told

MAX_TEXT = 100 << 20  # bytes; metadata are far smaller

FloatArray = npt.NDArray[np.float64]


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: it is not there, too long for metadata, or not text.
    """
    try:
        if path.stat().st_size > MAX_TEXT:
            raise InputError(f"{path} is too large for metadata; fetch the product again")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as problem:
        raise InputError(f"cannot read {path}: {told(problem)}") from problem


def xml_of(path: Path) -> ET.Element:
    """The root of an XML file, its names without namespaces.

    Raises:
        InputError: it cannot be read.
    """
    try:
        root = ET.fromstring(text_of(path))
    except ET.ParseError as problem:
        raise InputError(f"{path} is damaged ({problem}); fetch the product again") from problem
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    return root


def json_of(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return json.loads(text_of(path))
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{path} is damaged ({told(problem)}); fetch it again") from problem


def mtl_of(path: Path) -> dict[str, Any]:
    """Groups of a Landsat MTL file, as text or JSON."""
    if path.suffix.lower() == ".json":
        found = json_of(path)
        return dict(found) if isinstance(found, dict) else {}
    root: dict[str, Any] = {}
    open_groups = [root]
    for line in text_of(path).splitlines():
        key, mark, value = (part.strip() for part in line.partition("="))
        if not mark:
            continue
        if key == "GROUP":
            open_groups.append(open_groups[-1].setdefault(value, {}))
        elif key == "END_GROUP" and len(open_groups) > 1:
            open_groups.pop()
        else:
            open_groups[-1][key] = value.strip('"')
    return root


def understood(path: Path, work: Callable[[], Any]) -> Any:
    """What `work` finds in metadata.

    Raises:
        InputError: something that must be in them is not.
    """
    try:
        return work()
    except DAMAGE as problem:
        raise InputError(
            f"{path} lacks what its kind of product must have ({told(problem)}); fetch it again"
        ) from problem


def words(root: ET.Element, name: str) -> str:
    """The text of the first element of that name below.

    Raises KeyError where there is none.
    """
    found = next(root.iter(name), None)
    if found is None or not (found.text or "").strip():
        raise KeyError(name)
    return (found.text or "").strip()


def numbers(root: ET.Element, name: str) -> FloatArray:
    """The numbers of the first element of that name below."""
    return np.array(words(root, name).split(), np.float64)
