"""The layouts of files with two-time maps, each read and written in one file of its own.

A new layout is a file here, with `NAME`, `ABOUT`, `analyses` and `read`, and a word in `_HDF5`.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from ...errors import DataError
from . import age_lag, aps_old, aps_u, arrays, generic, id02, nxxpcs, own
from .described import Description
from .generic import GenericLayout
from .maps import Place, RawMaps
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
# Results of APS that are no maps.
_ONE_TIME = ("xpcs/multitau/normalized_g2", "exchange/norm-0-g2")
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
    name = recognise(file) if place.layout is None else place.layout
    found = _HDF5[name].analyses(file)
    analysis = _analysis(file, name, found, place.analysis)
    raw = _HDF5[name].read(file) if analysis is None else _HDF5[name].read(file, analysis)
    return replace(raw, place=replace(place, layout=name, analysis=analysis))


def _analysis(file: Group, layout: str, found: dict[str, str], asked: str | None) -> str | None:
    """The one analysis that is meant; `None` where there is none to choose from.

    **Raises:** `DataError` when several could be meant, or what was asked for is not there.
    """
    there = ", ".join(
        one if one == results else f"{one} (results in {results})" for one, results in found.items()
    )
    if asked is not None:
        # Either group of an analysis names it.
        name = asked.strip("/")
        meant = [one for one, results in found.items() if name in (one, results.strip("/"))]
        if len(meant) == 1:
            return meant[0]
        raise DataError(
            f"{file.filename}: the analysis {asked!r} is not in this {layout} file; there is "
            f"{there or 'none'}."
        )
    if len(found) > 1:
        raise DataError(
            f"{file.filename}: this {layout} file holds {len(found)} analyses: {there}. Say which "
            "one with analysis= (data.analysis)."
        )
    return next(iter(found), None)


def recognise(file: Group) -> str:
    """Name of the layout of an open HDF5 file.

    **Raises:** `DataError` with what is in the file and what each layout would need.
    """
    for name, layout in _HDF5.items():
        if layout.analyses(file):
            return name
    grids = _grids(file)
    if grids:
        place = grids[0].rpartition("/")[0]
        lags = next(one for one in _LAGS if file.reach(f"{place}/{one}") is not None)
        raise DataError(
            f"{file.filename}: {', '.join(grids)} lies on a grid of age and lag, each entry a mean "
            "over its bin. Say what is where, with the q of each map and the frame time dt: "
            f'layout = "generic", generic = {{maps = "{grids[0]}", axes = "age_lag", ages = '
            f'"{place}/age", lags = "{place}/{lags}", q = …}} in a configuration; in Python '
            "load_bins with a GenericLayout of the same. Axes in the other order are lag_age."
        )
    needs = "\n".join(f"  {name}: {_HDF5[name].ABOUT.need()}" for name in _HDF5)
    refused = f"\nNot followed: {file.unreached}" if file.unreached else ""
    raise DataError(
        f"{file.filename}: no known layout of two-time maps.{_closest(file)} It holds\n"
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
    for name, paths in marks.items():
        present = [path for path in paths if file.reach(path) is not None]
        if present:
            missing = ", ".join(path for path in paths if path not in present)
            partial.append(f"{name} ({', '.join(present)} is there, {missing} is missing)")
    said = f" It comes closest to {' and '.join(partial)}." if partial else ""
    one_time = any(file.reach(path) is not None for path in _ONE_TIME)
    if one_time or nxxpcs.entries_with(file, nxxpcs.ONE_TIME):
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
