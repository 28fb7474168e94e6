"""What is wrong with a figure as it is drawn: texts that collide or run out of it, or are small."""

import itertools

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

# The smallest letters that can be read in print [points], and the width of a page [inches].
SMALLEST, WIDEST = 5.4, 7.0


def shown_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is drawn, with its place in pixels."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    out = []
    for one in figure.findobj(Text):
        if not one.get_text().strip() or not one.get_visible():
            continue
        axes = one.axes
        hidden = axes is not None and not axes.axison and one not in axes.texts
        titles = axes is not None and one in (axes.title, axes._left_title, axes._right_title)
        if hidden and not titles:
            continue
        box = one.get_window_extent(renderer)
        if box.width > 0:
            out.append((one, box))
    # Ticks beyond the limits of their axis are there, and not drawn.
    drawn = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_visible() and axes.axison:
                # Where the ticks stand on paper: a logarithmic axis has no room below zero.
                on_paper = axis.get_transform().transform
                low, high = sorted(on_paper(axis.get_view_interval()))
                slack = 1e-9 * (high - low)
                drawn |= {
                    label
                    for place, tick in zip(
                        on_paper(axis.get_majorticklocs()), axis.get_major_ticks(), strict=False
                    )
                    if low - slack <= place <= high + slack
                    for label in (tick.label1, tick.label2)
                    if label.get_visible()
                } | {axis.label}
        drawn |= {axes.title, axes._left_title, axes._right_title, *axes.texts}
        if axes.get_legend() is not None:
            drawn |= {*axes.get_legend().get_texts(), axes.get_legend().get_title()}
    for legend in figure.legends:
        drawn |= {*legend.get_texts(), legend.get_title()}
    drawn |= {*figure.texts, figure._suptitle, figure._supxlabel}
    return [(one, box) for one, box in out if one in drawn]


def complaints(figure: Figure) -> list[str]:
    """What a reader would object to, in sentences."""
    found = shown_texts(figure)
    width, height = figure.get_size_inches() * figure.dpi
    out = []
    if figure.get_figwidth() > WIDEST + 1e-9:
        out.append(f"{figure.get_figwidth():.2f} inches are wider than a page")
    for one, box in found:
        if one.get_fontsize() < SMALLEST:
            out.append(f"{one.get_text()!r} is too small to be read")
        if min(box.x0, box.y0) < -1 or box.x1 > width + 1 or box.y1 > height + 1:
            out.append(f"{one.get_text()!r} runs out of the figure")
    for (one, here), (other, there) in itertools.combinations(found, 2):
        if one.get_rotation() % 90 and other.get_rotation() % 90:
            # Slanted side by side: their boxes meet, and they do not.
            continue
        both = Bbox.intersection(here, there)
        if both is not None and both.width > 2 and both.height > 2:
            out.append(f"{one.get_text()!r} collides with {other.get_text()!r}")
    panels = [axes for axes in figure.axes if axes.axison and not hasattr(axes, "_colorbar")]
    for axes in panels:
        here = axes.get_position()
        # A label at the end of a row or of a column serves all of it.
        below = [o.get_xlabel() for o in panels if abs(o.get_position().x0 - here.x0) < 0.01]
        aside = [o.get_ylabel() for o in panels if abs(o.get_position().y0 - here.y0) < 0.01]
        if not any(below) or not any(aside):
            out.append(f"axes {axes.get_title(loc='left')!r} have no label")
    return out
