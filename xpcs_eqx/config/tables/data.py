"""The tables `[data]`, `[[data]]` and `[joint]`: what is fitted, and how it is read."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ...data import (
    LAYOUTS,
    GenericLayout,
    PooledData,
    Selection,
    StoredTwoTime,
    TwoTimeData,
    load_any,
    open_stored,
)
from ..section import Choice, Finite, Names, Pair, Path, PerAngle, Positive, Section, key, made
from .model import Model

if TYPE_CHECKING:
    from ..read import Configuration

Layout = Annotated[
    str,
    Choice(**dict.fromkeys(LAYOUTS)),
    # In Python a name would have an underscore; both are meant.
    BeforeValidator(lambda value: value.replace("_", "-") if isinstance(value, str) else value),
]


PerMap = PerAngle | str


class Generic(Section):
    """Where maps are in a file of no known layout."""

    maps: Annotated[str, Field(min_length=1)] = key(
        ..., "HDF5 path of the maps, or name of an array in an NPZ file", example="scan/c2"
    )
    axis: Literal["first", "last"] = key("first", "along which axis of a stack maps are counted")
    q: PerMap | None = key(None, "q [1/Å]: one number, one for each map, or the path of a list")
    phi: PerMap | None = key(None, "azimuth [deg], in the same way")
    frame_time: str | None = key(None, "path of the time between two frames [s]")
    t: str | None = key(None, "path of the times of all frames [s]")
    axes: Literal["t1_t2", "age_lag", "lag_age"] = key(
        GenericLayout.axes, "axes of a map; with age and lag it holds means over bins"
    )
    ages: PerMap | None = key(
        None, "edges or centres of the bins of age [s], numbers or the path of a list"
    )
    lags: PerMap | None = key(None, "those of the bins of lag [s], in the same way")
    sigma: str | None = key(None, "path of the standard deviations of bins")


class Data(Section):
    """What is fitted."""

    path: Path = key(
        ..., "file with two-time maps, relative to this file", example="data.h5", shown=True
    )
    layout: Layout | None = key(
        None, 'layout; recognised by itself, "generic" is described by generic', example="generic"
    )
    generic: Generic | None = key(
        None,
        "where the maps are in a file of no known layout: maps, axis, q, phi, frame_time, t; of "
        "bins axes, ages, lags, sigma",
        example={"maps": "scan/c2", "axis": "last", "phi": [0.0, 90.0]},
    )
    analysis: str | None = key(
        None, "group or entry of one of several analyses in the file", example="xpcs_1"
    )
    linked_files: bool = key(
        False, "whether files outside the folder of the file may be read where it links to them"
    )
    locking: bool = key(True, "whether the file is locked meanwhile; false reads beside a writer")
    q: Positive | Annotated[list[Positive], Field(min_length=1)] | None = key(
        None,
        "scattering vector [1/Å] to take, within 1 %; for bare maps (npy) the one they belong to",
        expected="a number above zero, or a list of such",
        example=0.0054,
    )
    q_tolerance: Positive | None = key(
        None, "take all q bins within this distance [1/Å]", example=1e-4
    )
    merge_q: bool = key(
        Selection.merge_q,
        "take the q bins within the tolerance, or of the list, as one q, their mean",
    )
    phi: PerAngle | None = key(
        None,
        "azimuths [deg] of bare maps (npy) and of files without",
        expected="a number, or one for each map",
        example=[0.0, 90.0],
    )
    frames: Annotated[list[int], Field(min_length=2, max_length=2)] | None = key(
        None,
        "frames, from 1, both inclusive; -1 is the last",
        expected="[first, last], whole numbers",
        example=[1, -1],
    )
    dt: Positive | None = key(None, "time between two frames [s]", example=0.1)
    time_origin: Finite | None = key(
        None, "time of frame 1 [s]; by default that of its place in the series, or 0", example=0.0
    )
    gap: Positive | None = key(None, "gap of the shear cell [Å]; 2e6 by default", example=2e6)
    phi_ranges: list[Pair] = key(
        [], "ranges of azimuth to take [deg]; all when empty", expected="a list of [low, high]"
    )
    bad_frames: list[Annotated[int, Field(ge=1)]] | Literal["auto", "off"] = key(
        "auto",
        'frames that count for nothing, from 1; "auto" finds those that were not measured',
        expected='"auto", "off" or a list of whole numbers from 1',
    )
    min_lag: int = key(Selection.min_lag, "smallest lag that counts [frames]", ge=1)
    max_lag: int | None = key(None, "largest lag that counts [frames]", example=500, ge=1)
    age_range: Pair | None = key(
        None, "ages (t1 + t2)/2 that count [s]", expected="[low, high]", example=[0.0, 50.0]
    )
    baseline: Literal["auto"] | Annotated[int, Field(ge=0, le=1)] = key(
        "auto",
        'what full decorrelation is in the maps: 1 for c2, 0 for c2 − 1; "auto" finds it',
        expected='"auto", 0 or 1',
    )
    symmetrise: Literal["mean", "upper", "lower"] | None = key(
        None, "what counts of maps whose triangles differ; refused otherwise", example="mean"
    )
    sigma: Positive | Literal["mad"] | None = key(
        None,
        'standard deviation of c2; a stored one is used by itself, "mad" estimates it',
        example="mad",
    )

    @model_validator(mode="after")
    def _described(self) -> "Data":
        if (self.layout == "generic") != (self.generic is not None):
            raise ValueError(
                'layout = "generic" and generic = {maps = "PATH", …} belong together; give both or '
                "none"
            )
        return self


class DataSet(Data):
    """One of several data sets that are fitted together."""

    label: (
        Annotated[
            str, Field(pattern=r"^[^\[\]\"'\s]([^\[\]\"'\r\n]*[^\[\]\"'\s])?$", max_length=60)
        ]
        | None
    ) = key(
        None,
        "name in reports and of its parameters, as in D0[hot]; the name of the file, or 1, 2, …",
        expected="a text of up to 60 characters without brackets, quotes, line breaks and outer "
        "spaces",
        example="hot",
        shown=True,
    )
    weight: Positive | None = key(
        None,
        "weight of its squared residuals, for all data sets or for none; by default the inverse "
        "variance of their noise",
        example=1.0,
    )
    angle_weights: Annotated[list[Positive], Field(min_length=1)] | None = key(
        None, "weight of the squared residuals of each of its angles", example=[1.0, 1.0, 0.5]
    )
    factors: dict[str, Finite] = key(
        {},
        "its own value is factor times the shared one",
        expected="a table of numbers, none of them zero",
        example={"D0": 0.45},
    )
    model: Model | None = key(None, "what differs from [model]", example={"mode": "static"})

    @model_validator(mode="after")
    def _check(self) -> "DataSet":
        for name, factor in self.factors.items():
            if factor == 0:
                raise ValueError(f"factors.{name} = 0 leaves nothing to fit; give another number")
        return self


class Joint(Section):
    """What several data sets share."""

    shared: Names | None = key(
        None,
        "parameters with one value for all; by default those that all models have",
        example=["D0", "alpha", "D_offset"],
    )
    separate: Names | None = key(
        None, "parameters with a value for each, all others being shared", example=["D_offset"]
    )

    @model_validator(mode="after")
    def _check(self) -> "Joint":
        if self.shared is not None and self.separate is not None:
            raise ValueError("shared and separate say the same twice; leave one of them out")
        return self


def reading_of(given: Data) -> dict[str, Any]:
    """What a table of data asks of every way to read it, as keywords."""
    q = tuple(given.q) if isinstance(given.q, list) else given.q
    # A single q must be in the file (to 1 %), or belongs to a bare map; a tolerance searches.
    single = q if isinstance(q, float) and given.q_tolerance is None else None
    first, last = given.frames or (1, -1)
    return {
        "layout": given.layout if given.generic is None else made(GenericLayout, given.generic),
        "analysis": given.analysis,
        "linked_files": given.linked_files,
        "locking": given.locking,
        "phi": given.phi,
        "selection": made(
            Selection,
            given,
            start_frame=first,
            end_frame=last,
            q=q if single is None else None,
            phi_ranges=tuple(map(tuple, given.phi_ranges)),
        ),
        "dt": given.dt,
        "gap": given.gap,
        "sigma": given.sigma,
        "q": single,
        "baseline": given.baseline,
        "symmetrise": given.symmetrise,
    }


Given = TwoTimeData | StoredTwoTime | PooledData


def read_data(configuration: "Configuration", stored: bool) -> Given:
    """The data of a configuration in memory, maps or bins, or left in their file (`stored`).

    **Raises:** `DataError`.
    """
    how = reading_of(configuration.data)
    if not stored:
        return load_any(configuration.data_path, **how)
    return open_stored(configuration.data_path, checksum=True, **how)
