"""The tables of a configuration, one file for a table or for those that belong together.

A file holds everything about its tables: keys, what they mean, examples, what they do not go with
(`excluded`), and what makes objects of them. Nothing here imports JAX before it is needed: a wrong
key is reported at once.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from ..section import Path, Section, choice, key
from . import bayes as bayes_table
from . import defences as defence_tables
from . import search, solver
from .bayes import Bayes
from .data import Data, DataSet, Joint
from .defences import Defences
from .model import Model, Parameter, Rate
from .scaling import Scaling
from .search import WithGlobal
from .solver import Solver
from .streaming import Hybrid, Streaming

COMBINATIONS = choice(
    inverse_variance="fitting.InverseVariance",
    uniform="fitting.Uniform",
    by_points="fitting.ByPoints",
)


class Output(Section):
    """What is written, and where."""

    directory: Path | None = key(
        None,
        "results folder, relative to this file; by default beside it, NAME_results",
        example="results",
    )
    plots: bool = key(True, "whether to write plots")
    fitted_data: bool | None = key(
        None, "whether to write fit/fitted_data; by default if maps are in memory", example=True
    )
    degeneracy: bool | Literal["auto"] = key(
        "auto", "what the data leave open, with profiles and advice; auto: of degenerate fits"
    )
    diagnostics: bool = key(False, "sensitivities, gradients and scales of the parameters")
    sequential: Annotated[str, COMBINATIONS] | None = key(
        None, "fits each angle by itself as well, combined this way", example="inverse_variance"
    )


def _one_or_several(given: object) -> str:
    return "several" if isinstance(given, list) else "one"


class Settings(WithGlobal):
    """A configuration: one table `[data]`, or several `[[data]]`."""

    data: Annotated[
        Annotated[Data, Tag("one")] | Annotated[list[DataSet], Field(min_length=1), Tag("several")],
        Discriminator(_one_or_several),
    ] = key(..., "what is fitted", expected="a table [data], or a table [[data]] for each data set")
    joint: Joint | None = None
    model: Model = Model()
    rates: dict[str, Rate] = Field(default={}, description="one table a rate of the model")
    parameters: dict[str, Parameter] = Field(default={}, description="one table a parameter")
    scaling: Scaling = Scaling()
    solver: Solver = Solver()
    streaming: Streaming = Streaming()
    hybrid: Hybrid = Hybrid()
    defences: Defences | None = None
    bayes: Bayes | None = None
    output: Output = Output()

    @property
    def several(self) -> bool:
        """Whether data sets have labels: `[[data]]`, or one for each q of a file with `[joint]`."""
        return isinstance(self.data, list) or self.joint is not None


def _excluded_output(settings: "Settings") -> Iterator[tuple[str, str]]:
    """Keys of `[output]` that other tables leave no room for, and what to say."""
    for name in ("degeneracy", "diagnostics", "sequential"):
        asked = getattr(settings.output, name)
        if settings.several and asked not in (False, Output.model_fields[name].default):
            yield (
                f"output.{name}",
                f"output.{name} is for the fit of one data set, but several are fitted together "
                "here; leave it out, or run each data set by itself",
            )


def excluded(settings: Settings) -> Iterator[tuple[str, str]]:
    """Keys that do not go together, and what to say."""
    yield from solver.excluded(settings)
    yield from search.excluded(settings)
    yield from defence_tables.excluded(settings)
    yield from bayes_table.excluded(settings)
    yield from _excluded_output(settings)
