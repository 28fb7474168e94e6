"""Figures of results for whoever works in Python: drawn when they are looked at."""

import base64
import html
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..bayes import Posterior
from ..errors import ModelError, how_to_install
from ..fitting import Fit
from .sections import Drawing, folder_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MISSING = f"plots need matplotlib; install it with: {how_to_install('program')}"


@dataclass(frozen=True)
class Figures(Mapping[str, "Figure"]):
    """Figures by name, each drawn when it is asked for; a notebook shows them with captions.

    - `drawings`: what draws them; those of several data sets are called `label/name`.
    """

    drawings: tuple[Drawing, ...]

    def __getitem__(self, name: str) -> "Figure":
        from .plots.canvas import style

        for one in self.drawings:
            if one.name == name:
                with style():
                    return one.draw()
        raise KeyError(f"no figure {name!r}; there are {', '.join(self)}")

    def __iter__(self) -> Iterator[str]:
        return (one.name for one in self.drawings)

    def __len__(self) -> int:
        return len(self.drawings)

    def __repr__(self) -> str:
        return (
            f"Figures({', '.join(self)})\n"
            "  .save(folder) writes files, .show() opens windows, [name] is a matplotlib figure"
        )

    def _repr_html_(self) -> str:
        """Every figure with its caption, for a notebook."""
        return "".join(map(self._shown, self.drawings))

    def _shown(self, one: Drawing) -> str:
        from .plots.canvas import style

        content = io.BytesIO()
        figure = self[one.name]
        with style():
            figure.savefig(content, format="png")
        image = base64.b64encode(content.getvalue()).decode("ascii")
        name, said = html.escape(one.name.replace("_", " ")), html.escape(one.caption)
        return (
            f'<figure style="margin:0.5em 0"><img alt="{name}" style="max-width:100%" '
            f'src="data:image/png;base64,{image}"><figcaption><b>{name}</b> {said}</figcaption>'
            "</figure>"
        )

    def save(self, folder: str | os.PathLike[str], kind: str = "png") -> tuple[str, ...]:
        """Write every figure into a folder, which is made if needed; returns the paths.

        `kind` is the ending of the files: png, pdf or svg.

        **Raises:** `ConfigError` for another one; `OSError` when they cannot be written.
        """
        from .plots.canvas import style, write_figure

        paths, sets = [], [name.rpartition("/")[0] for name in self if "/" in name]
        labels = list(dict.fromkeys(sets))
        inside = dict(zip(labels, folder_names(labels), strict=True))
        for name, figure in self.items():
            label, _, plain = name.rpartition("/")
            stem = os.path.join(folder, inside.get(label, ""), plain)
            with style():
                paths.append(write_figure(figure, stem, kind))
        return tuple(paths)

    def show(self) -> None:
        """Open a window for every figure, as `pyplot.show` does."""
        from matplotlib import pyplot

        for name, figure in self.items():
            # pyplot makes windows only of figures that it has made itself.
            made: Any = lambda figure=figure, **_: figure  # noqa: E731
            pyplot.figure(num=name, FigureClass=made)
        pyplot.show()


def _chosen(drawings: Sequence[Drawing], names: tuple[str, ...]) -> Figures:
    known = {one.name: one for one in drawings}
    if unknown := [name for name in names if name not in known]:
        raise ModelError(f"no figure {unknown[0]!r}; there are {', '.join(known)}")
    return Figures(tuple(known[name] for name in names or known))


def figures_of_fit(fit: Fit, names: tuple[str, ...] = ()) -> Figures:
    """The figures of a fit, all or those called `names`; of several data sets `label/name`.

    **Raises:** `ModelError` for a name that is none, and without matplotlib.
    """
    try:
        from .plots import drawings, solver_drawings
    except ImportError as error:
        raise ModelError(_MISSING) from error
    way = solver_drawings(fit)
    if not fit.data_sets:
        return _chosen([*drawings(fit), *way], names)
    each = [
        one._replace(name=f"{label}/{one.name}")
        for label, part in fit.parts.items()
        for one in drawings(part)
    ]
    return _chosen([*each, *way], names)


def figures_of_posterior(posterior: Posterior, names: tuple[str, ...] = ()) -> Figures:
    """The figures of a posterior, all or those called `names`. **Raises:** as `figures_of_fit`."""
    try:
        from .plots import posterior_drawings
    except ImportError as error:
        raise ModelError(_MISSING) from error
    return _chosen(posterior_drawings(posterior), names)
