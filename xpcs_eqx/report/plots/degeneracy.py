"""What the data leave open, drawn: profiles and weak directions."""

import numpy as np
from matplotlib.figure import Figure

from ...fitting import DegeneracyReport
from .canvas import DATA, FIT, figure, grid

# Rise at which a profile is cut off, so that its bottom can be seen.
_TOP = 9.0
_MOST = 4


def degeneracy_figure(report: DegeneracyReport) -> Figure:
    """Profiles with the line of one standard error, and who takes part in the weak directions."""
    panels = [*report.profiles[:_MOST], *([None] if report.directions else [])]
    columns = max(len(panels), 1)
    fig = figure(0.6 + 2.9 * columns, 2.9, "What the data determine")
    left, right = 0.62 / (0.6 + 2.9 * columns), 1 - 0.15 / (0.6 + 2.9 * columns)
    axes = grid(fig, 1, columns, left=left, right=right, bottom=0.2, top=0.84, wspace=0.36)[0]
    for axis, curve in zip(axes, panels, strict=False):
        if curve is None:
            _directions(axis, report)
            continue
        axis.plot(curve.values, curve.rise, "o-", ms=3.5, color=DATA)
        axis.axhline(1.0, color="0.5", lw=0.8, ls="--")
        axis.axvline(curve.best, color=FIT, lw=0.8)
        axis.set_ylim(-0.15, min(max(float(np.max(curve.rise, initial=0.0)) * 1.1, 1.6), _TOP))
        axis.set_xlabel(f"{curve.name} [{curve.unit}]" if curve.unit else curve.name)
        axis.set_ylabel("rise of χ² [σ²]")
        axis.set_title("flat" if curve.flat else "", loc="right")
        axis.locator_params(axis="x", nbins=4)
    return fig


def _directions(axis, report: DegeneracyReport) -> None:
    shown = report.directions[:3]
    names = list(dict.fromkeys(name for one in shown for name in one.names))
    height = 0.8 / len(shown)
    for k, one in enumerate(shown):
        places = (
            np.array([names.index(name) for name in one.names])
            + (k - (len(shown) - 1) / 2) * height
        )
        color = (DATA, FIT, "#ddaa33")[k]
        axis.barh(places, one.shares, height=0.9 * height, color=color, label=f"{one.ratio:.0e}")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.axvline(0.0, color="0.3", lw=0.6)
    axis.set_xlim(-1.05, 1.05)
    axis.set_xlabel("share in the direction")
    axis.legend(
        title="curvature", loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderpad=0
    )
