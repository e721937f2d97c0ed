"""Non-negative matrix factorisation: estimators, solvers and modules on torch.

`NMF` factorises a matrix, `NMFD` one whose components extend over time or over two axes, `PLCA`
one that is a probability. The solvers beneath are plain functions in `warte.nmf.solve`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warte.nmf.convolutive import NMFD
    from warte.nmf.estimator import NMF
    from warte.nmf.plca import PLCA

__all__ = ["NMF", "NMFD", "PLCA"]


def __getattr__(name: str) -> Any:
    """Import an estimator when it is first asked for: the solvers alone need no scikit-learn."""
    if name == "NMF":
        from warte.nmf.estimator import NMF

        return NMF
    if name == "NMFD":
        from warte.nmf.convolutive import NMFD

        return NMFD
    if name == "PLCA":
        from warte.nmf.plca import PLCA

        return PLCA
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
