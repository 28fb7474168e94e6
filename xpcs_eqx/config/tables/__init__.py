"""The tables of a configuration, one file for a table or for those that belong together.

A file holds everything about its tables: keys, what they mean, examples, what they do not go with
(`Section.excluded`), and what makes objects of them.
"""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from ... import fitting
from ...fitting import AbstractCombination
from ..section import SET, Path, Positive, Section, When, choice_of, expected_of, key, keys_of
from .bayes import Bayes
from .data import Data, DataSet, Joint
from .defences import Defences
from .model import Model, Parameter, Rate
from .scaling import Scaling
from .search import WithGlobal
from .solver import Solver
from .streaming import Hybrid, Streaming
from .verdict import Verdict

COMBINATIONS = choice_of(fitting, AbstractCombination)


class Output(Section):
    """What is written, and where."""

    directory: Path | None = key(
        None,
        "results folder, relative to this file; by default beside it, NAME_results",
        example="results",
    )
    plots: bool = key(True, "whether to write plots")
    plot_format: Literal["png", "svg", "pdf"] = key("png", "format of the files of plots")
    all_errors: bool = key(
        False, "whether the report has the errors by other assumptions about the noise as well"
    )
    fitted_data: bool | None = key(
        None, "whether to write fit/fitted_data; by default if maps are in memory", example=True
    )
    degeneracy: bool | Literal["auto"] = key(
        "auto", "what the data leave open, with profiles and advice; auto: of degenerate fits"
    )
    diagnostics: bool = key(False, "sensitivities, gradients and scales of the parameters")
    compilation_cache: bool = key(
        True, "whether to keep compiled functions in the user's cache folder, for the next run"
    )
    sequential: Annotated[str, COMBINATIONS] | None = key(
        None, "fits each angle by itself as well, combined this way", example="inverse_variance"
    )
    ages: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] | None = key(
        None,
        "ages [s] at which half-decay lags, relaxation times and rates are given; by default where "
        "the maps begin, and after a quarter and half of their time",
        example=[10.0, 100.0],
    )
    g2_ages: Annotated[int, Field(ge=1)] | Annotated[list[Positive], Field(min_length=1)] | None = (
        key(
            None,
            "cuts g2(τ) out of the maps at ages [s], or in so many equal windows, and fits a "
            "stretched exponential to each, for comparison",
            example=4,
        )
    )
    g2_width: Positive | None = key(
        None,
        "length of the window around an age that is given [s]; a tenth of the series by default",
        example=10.0,
        when=(When("g2_ages", SET),),
    )


class Settings(WithGlobal):
    """A configuration: one table `[data]`, or several `[[data]]`."""

    data: Annotated[
        Annotated[Data, Tag("one")] | Annotated[list[DataSet], Field(min_length=1), Tag("several")],
        Discriminator(lambda given: "several" if isinstance(given, list) else "one"),
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
    verdict: Verdict = Verdict()
    output: Output = Output()

    @property
    def several(self) -> bool:
        """Whether data sets have labels: `[[data]]`, or one for each q of a file with `[joint]`."""
        return isinstance(self.data, list) or self.joint is not None


# Values of these keys are paths: in the file relative to the file, on the command line relative to
# the current folder.
PATHS = tuple(
    dict.fromkeys(key for key, info, _ in keys_of(Settings) if expected_of(info) == "a path")
)
