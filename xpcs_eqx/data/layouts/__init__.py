"""The layouts of files with two-time maps, each read and written in one file of its own.

A new layout is a file here, with `NAME`, `ABOUT`, `analyses` and `read`, and a word in `_HDF5`.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from ...errors import DataError
from . import age_lag, aps_old, aps_u, arrays, generic, id02, nxxpcs, own
from .generic import GenericLayout
from .hdf5 import groups_with, is_searched_in_part, joined
from .maps import Description, Place, RawMaps
from .opened import Array, Group

_HDF5 = {layout.NAME: layout for layout in (own, aps_u, aps_old, nxxpcs, id02)}
DESCRIPTIONS: dict[str, Description] = {
    **{name: layout.ABOUT for name, layout in _HDF5.items()},
    "npz": arrays.ABOUT_NPZ,
    "npy": arrays.ABOUT_NPY,
    age_lag.NAME: age_lag.ABOUT,
    generic.NAME: generic.ABOUT,
}
LAYOUTS = tuple(DESCRIPTIONS)
# Lines of a file of no known layout that a message shows.
_SHOWN = 24
# Datasets of such a file that are looked at, and groups within groups.
_LOOKED_AT, _DEEPEST = 2000, 8
# Results that are no maps: of APS-U, older ones of APS, and NXxpcs.
_ONE_TIME = ("multitau/normalized_g2", "norm-0-g2", nxxpcs.ONE_TIME)
# What lags are called beside results on a grid of age and lag.
_LAGS = ("lag", "timeshift", "lags")


def read_maps(file: Group, place: Place) -> RawMaps:
    """Lists and maps of an open HDF5 file, those of the `place` that is meant.

    The result says where that was found to be.

    **Raises:** `DataError` for an unknown layout, one of several analyses that was not named, and
    as the reader of the layout.
    """
    if isinstance(place.layout, GenericLayout):
        raw = generic.read(file, place.layout)
        return replace(raw, place=place)
    name, analysis = _meant(file, place)
    raw = _HDF5[name].read(file) if analysis is None else _HDF5[name].read(file, analysis)
    return replace(raw, place=replace(place, layout=name, analysis=analysis))


class _Analysis(NamedTuple):
    """Results in a file: their layout, the name by which they are asked for, and their group."""

    layout: str
    name: str
    results: str

    def said(self, alone: bool) -> str:
        """It in words, with its layout where not `alone` in the file."""
        apart = f"results in {self.results}" if self.results != self.name else ""
        more = ", ".join(filter(None, ("" if alone else self.layout, apart)))
        return f"{self.name} ({more})" if more else self.name


def _meant(file: Group, place: Place) -> tuple[str, str | None]:
    """Layout and name of the one analysis that is meant; no name where there is none.

    **Raises:** `DataError` for an unknown layout, when several could be meant, or what was asked
    for is not there.
    """
    layouts = list(_HDF5)
    if isinstance(place.layout, str):
        layouts = [place.layout]
    elif own.analyses(file):
        # The file says what it is, whatever else is in it.
        layouts = [own.NAME]
    found = [
        _Analysis(layout, name, results)
        for layout in layouts
        for name, results in _HDF5[layout].analyses(file).items()
    ]
    if not found and place.layout is None:
        raise DataError(_unknown(file))
    known = list(dict.fromkeys(one.layout for one in found)) or layouts
    kind = f"this {known[0]} file" if len(known) == 1 else "this file"
    there = ", ".join(one.said(len(known) == 1) for one in found)
    if place.analysis is not None:
        # Either group of an analysis names it.
        asked = place.analysis.strip("/")
        found = [one for one in found if asked in (one.name, one.results.strip("/"))]
        if len(found) != 1:
            raise DataError(
                f"{file.filename}: the analysis {place.analysis!r} is "
                f"{'not' if not found else 'not the only one of that name'} in {kind}; there is "
                f"{there or 'none'}."
            )
    if len(found) > 1:
        how = "analysis= (data.analysis)"
        raise DataError(
            f"{file.filename}: {kind} holds {len(found)} analyses: {there}. Say which one with "
            f"{how}{'' if len(known) == 1 else ' or layout= (data.layout)'}."
        )
    return (found[0].layout, found[0].name) if found else (layouts[0], None)


def _unknown(file: Group) -> str:
    """What is said of a file of no known layout: what is in it and what each layout would need."""
    grids = _grids(file)
    if grids:
        place = grids[0].rpartition("/")[0]
        lags = next(one for one in _LAGS if file.reach(f"{place}/{one}") is not None)
        return (
            f"{file.filename}: {', '.join(grids)} lies on a grid of age and lag, each entry a mean "
            "over its bin. Say what is where, with the q of each map and the frame time dt: "
            f'layout = "generic", generic = {{maps = "{grids[0]}", axes = "age_lag", ages = '
            f'"{place}/age", lags = "{place}/{lags}", q = …}} in a configuration; in Python '
            "load_bins with a GenericLayout of the same. Axes in the other order are lag_age."
        )
    needs = "\n".join(f"  {name}: {_HDF5[name].ABOUT.need()}" for name in _HDF5)
    refused = f"\nNot followed: {file.unreached}" if file.unreached else ""
    part = " Of its many groups the first were searched." if is_searched_in_part(file) else ""
    return (
        f"{file.filename}: no known layout of two-time maps.{_closest(file)}{part} It holds\n"
        f"{_tree(file)}{_square(file)}{refused}\nThe layouts need\n{needs}\n"
        "Write the file again in one of them, or say where the maps are with layout = "
        '"generic" (data.generic; data.GenericLayout in Python). All paths: '
        "xpcs_eqx.data.layouts_page()."
    )


def _closest(file: Group) -> str:
    """Layouts of which something is there, in a sentence."""
    marks = {
        aps_u.NAME: [f"{aps_u.ANALYSIS}/{key}" for key in (aps_u.Q_LIST, aps_u.MAPS)],
        aps_old.NAME: [
            *(f"{aps_old.ANALYSIS}/{key}" for key in (aps_old.Q_LIST, aps_old.PHI_LIST)),
            f"{aps_old.RESULTS}/{aps_old.MAPS}",
        ],
    }
    partial = []
    for name, keys in marks.items():
        places = [[joined(group, key) for key in keys] for group in ("", *groups_with(file))]
        there = [[path for path in paths if file.reach(path) is not None] for paths in places]
        k = max(range(len(there)), key=lambda k: len(there[k]))
        if there[k]:
            missing = ", ".join(path for path in places[k] if path not in there[k])
            partial.append(f"{name} ({', '.join(there[k])} is there, {missing} is missing)")
    said = f" It comes closest to {' and '.join(partial)}." if partial else ""
    if any(groups_with(file, key) for key in _ONE_TIME):
        said += " It holds g2 of one time (multi-tau): correlate the frames for two times."
    return said


def _datasets(group: Group, folder: str = "", depth: int = 0) -> Iterator[tuple[str, Array]]:
    """All datasets below a group and their paths."""
    for name in group:
        path, found = f"{folder}{name}", group.reach(name)
        if isinstance(found, Array):
            yield path, found
        elif isinstance(found, Group) and depth < _DEEPEST:
            yield from _datasets(found, f"{path}/", depth + 1)


def _tree(file: Group) -> str:
    """The datasets of a file with their shapes, a line each."""
    some = islice(_datasets(file), _SHOWN + 1)
    lines = [f"  {path} {found.shape} {found.dtype}" for path, found in some]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = ["  …"]
    return "\n".join(lines) or "  no dataset"


def _square(file: Group) -> str:
    """A line on datasets that may be maps, with the axis along which these are counted."""
    found = []
    for path, one in islice(_datasets(file), _LOOKED_AT):
        shape = one.shape
        if len(shape) in (2, 3) and shape[-2] == shape[-1] > 2:
            found.append(path)
        elif len(shape) == 3 and shape[0] == shape[1] > 2:
            found.append(f'{path} (with axis = "last")')
    return f"\nSquare, as maps are: {', '.join(found[:8])}." if found else ""


def _grids(file: Group) -> tuple[str, ...]:
    """Paths of two-time results on a grid of age and lag."""
    paths = {path for path, _ in islice(_datasets(file), _LOOKED_AT)}
    folders = {path.rpartition("/")[0] for path in paths if path.endswith("/ttcf")}
    return tuple(
        f"{folder}/ttcf"
        for folder in sorted(folders)
        if f"{folder}/age" in paths and any(f"{folder}/{lag}" in paths for lag in _LAGS)
    )


def layouts_page() -> str:
    """All layouts in Markdown: paths, what is required, optional, guessed and refused."""
    lines = ["# Layouts of files with two-time maps", ""]
    lines += [
        "Files of HDF5 may link to others in their own folder; elsewhere with `linked_files` only. "
        "Maps of two times are read",
        "by `load`, `load_joint` and `open_stored`; means over bins of age and lag (`age-lag`, "
        "`id02` and `generic` with `axes`)",
        "by `load_bins`; a configuration reads either. Results of ESRF tools on (t1, t2) are "
        "`generic`. In `generic` and `nxxpcs`",
        "a number without a unit is taken as one of 1/Å, degrees or s, with a note.",
        "",
        "Units may be written in most ways; M and P are mega and peta where m and p are others. "
        "Times that begin at",
        "1e8 s or later are those of a clock and count from the first of them. A number that is "
        "repeated exactly where",
        "others are noisy, or lies where no c2 does, was not measured and is masked with a note, "
        "as is a frame that repeats",
        'the one before it; `bad_frames = "off"` only names them. Texts and lists among the maps '
        "of a group are left out.",
        "",
    ]
    for name, about in DESCRIPTIONS.items():
        lines += [f"## {name}", ""]
        for word in ("required", "optional", "guessed", "refused"):
            lines += [f"- {word}: {one}" for one in getattr(about, word)]
        lines.append("")
    return "\n".join(lines)
