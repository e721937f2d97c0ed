"""Non-negative matrix factorisation: estimators, solvers and modules on torch.

`NMF` factorises a matrix, `NMFD` one whose components extend over time or over two axes, `PLCA`
one that is a probability, `ShiftPLCA` one whose components may start at any time. They follow
scikit-learn's conventions:

    from sklearn.datasets import load_digits
    from warte.nmf import NMF

    x = load_digits().data                         # (1797, 64), from 0
    model = NMF(16, random_state=0)
    w = model.fit_transform(x)                     # (1797, 16): how much of each part
    h = model.components_                          # (16, 64): the parts; x is nearly w @ h

Hidden and noisy entries are told with `mask` and `weights`. The solvers beneath are plain
functions in `warte.nmf.solve`; `warte.nmf.modules` has the same as parts of a network.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warte.nmf.convolutive import NMFD
    from warte.nmf.estimator import NMF
    from warte.nmf.plca import PLCA, ShiftPLCA

__all__ = ["NMF", "NMFD", "PLCA", "ShiftPLCA"]


def __getattr__(name: str) -> Any:
    """Import an estimator when it is first asked for: the solvers alone need no scikit-learn."""
    if name == "NMF":
        from warte.nmf.estimator import NMF

        return NMF
    if name == "NMFD":
        from warte.nmf.convolutive import NMFD

        return NMFD
    if name in ("PLCA", "ShiftPLCA"):
        from warte.nmf import plca

        return getattr(plca, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
