"""One configuration to one results folder: what `fit` does, and a series for each of its files."""

import contextlib
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from ..config.read import Configuration
from ..report import add_plots, check_target, new_results, prepare_plots
from .interrupted import checkpoints_of, clear_checkpoints, explain_resume, was_sampling
from .task import finished, task_of


class Ended(NamedTuple):
    """How a fit ended whose results are written.

    - `good`: whether there is a number to rely on; `text`: what there is to say.
    - `interrupted`: how to go on with a posterior that was interrupted; empty when none was.
    """

    good: bool
    text: str
    interrupted: str = ""


def fit_into(
    target: str,
    configuration: Configuration,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    on_terminal: bool = False,
    started: float | None = None,
) -> Ended:
    """Fit and write results into a folder that is free or may be replaced.

    **Arguments:**

    - `resume`: go on from a checkpoint; nothing is done where the results are those asked for.
    - `overwrite`: replace earlier results.
    - `progress`: a context whose value is called at every evaluation; `on_terminal`: whether the
        progress of sampling is shown.
    - `started`: `time.perf_counter()` at the start of the work.

    **Raises:** what a wrong configuration, data or the system raise; nothing is written then.
    """
    started = time.perf_counter() if started is None else started
    solver, output = configuration.settings.solver, configuration.settings.output
    checkpoints = checkpoints_of(solver.checkpoint, target, resume=resume, overwrite=overwrite)
    # The results of a fit whose posterior was interrupted are there to be completed.
    completing = resume and was_sampling(checkpoints)
    overwrite = overwrite or completing
    # With `resume` it may turn out that they are what is asked for.
    check_target(target, overwrite or resume, configuration.data_paths)
    task = task_of(configuration)
    loaded = time.perf_counter()
    if resume and not completing:
        good = finished(task, target, checkpoints)
        if good is not None:
            if checkpoints is not None:
                clear_checkpoints(checkpoints)
            return Ended(good, f"the fit is finished, nothing is left to do. Results: {target}")
        check_target(target, overwrite, whose=", of another configuration or of other data")
    if checkpoints is not None and not resume:
        clear_checkpoints(checkpoints)
    if output.plots:
        prepare_plots()
    with explain_resume(checkpoints), progress() as callback:
        outcome = task.run(
            callback=callback,
            checkpoints=checkpoints,
            every=solver.checkpoint_every,
            resume=resume,
        )
    with explain_resume(checkpoints):
        outcome = outcome.with_posterior(checkpoints, on_terminal)
    timings = {"loading": loaded - started}
    with explain_resume(checkpoints), new_results(target, overwrite) as folder:
        report = outcome.write(folder, target, timings, started)
    # Nothing that is drawn can cost what is written.
    try:
        missing = add_plots(target, report, output.plot_format) if output.plots else ()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {target} is complete but for plots") from None
    sampled = outcome.sampled
    if checkpoints is not None and not (sampled is not None and sampled.unfinished):
        clear_checkpoints(checkpoints)
    interrupted = ""
    if sampled is not None and sampled.interrupted:
        interrupted = sampled.how_to_go_on(target, checkpoints)
    page = os.path.join(target, "fit", "report.html")
    text = "\n".join([str(report), *missing, f"Results: {target}, to be read in {page}"])
    return Ended(outcome.good, text, interrupted)
