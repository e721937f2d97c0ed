"""Vectors of 32 bytes for loops that Numba compiles.

LLVM makes vectors of simple loops by itself; not of those that read at dozens of places, as it
cannot prove that none of these is written to. Written with the functions below, such a loop keeps
in registers what it works on. Where a processor's registers are shorter, LLVM takes several.

They are for compiled functions only, as are their values. The machine code that Numba keeps is not
made anew where this file alone has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

LANES = 32  # bytes of a vector

Made = tuple[Any, Callable[..., Any]]  # signature of an instruction and what writes its code

_BYTE = ir.IntType(8)
_VECTOR = ir.VectorType(_BYTE, LANES)


class Lanes(types.Type):
    """The type of LANES bytes with a sign."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def instruction(function: Callable[..., Made]) -> Any:
    """``function`` as compiled code calls it: without its first argument, which Numba adds."""
    return intrinsic(function)


def _pointer(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    """Where the element of an array (values 0) with an index (values 1) lies, as of a vector."""
    data = context.make_array(signature.args[0])(context, builder, values[0]).data
    return builder.bitcast(builder.gep(data, [values[1]]), _VECTOR.as_pointer())


@instruction
def load(typing: Any, array: Any, index: Any) -> Made:
    """``array[index : index + LANES]`` of contiguous int8."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, values), align=1)

    return lanes(array, types.intp), code


@instruction
def store(typing: Any, array: Any, index: Any, value: Any) -> Made:
    """``array[index : index + LANES] = value``."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _pointer(context, builder, signature, values), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), code


@instruction
def fill(typing: Any, value: Any) -> Made:
    """``value`` in each byte."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        none, number = ir.Constant(_VECTOR, ir.Undefined), ir.IntType(32)
        first = builder.insert_element(none, builder.trunc(values[0], _BYTE), number(0))
        everywhere = ir.Constant(ir.VectorType(number, LANES), [0] * LANES)
        return builder.shuffle_vector(first, none, everywhere)

    return lanes(types.intp), code


@instruction
def add(typing: Any, a: Any, b: Any) -> Made:
    """Sums byte by byte; what does not fit wraps around."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.add(*values)

    return lanes(lanes, lanes), code


@instruction
def larger(typing: Any, a: Any, b: Any) -> Made:
    """The larger of each two bytes."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.icmp_signed(">", *values), *values)

    return lanes(lanes, lanes), code


@instruction
def smaller(typing: Any, a: Any, b: Any) -> Made:
    """The smaller of each two bytes."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.icmp_signed("<", *values), *values)

    return lanes(lanes, lanes), code
