"""A posterior after the fit: made, and what is said of it."""

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..bayes import ConsensusPosterior, Outcome, Posterior, Progress, infer
from ..checkpoint import Checkpoints
from ..config.inference import Inference, in_toml
from ..errors import CheckpointError, XPCSError
from ..fitting import Fit
from ..report.bayes import plain, posterior_lines, write_bayes
from ..report.text import entry
from .interrupted import SHARDS, mark_sampling

log = logging.getLogger("xpcs_eqx.fit")


@dataclass(frozen=True)
class Sampled:
    """What became of a posterior.

    - `fit`: that was sampled from; with another scaling it is not the one in the report.
    - `found`: None when sampling failed or was interrupted, for the reason in `failure`.
    """

    inference: Inference
    fit: Fit
    found: Posterior | ConsensusPosterior | None
    failure: str
    interrupted: bool

    @property
    def good(self) -> bool:
        """Whether the draws can be used."""
        return self.found is not None and self.found.status == "converged"

    @property
    def unfinished(self) -> bool:
        """Whether going on makes sense: after an interrupt, and with shards that are done."""
        return self.interrupted or (self.found is None and self.inference.consensus)

    def how_to_go_on(self, target: str, checkpoints: Checkpoints | None) -> str:
        """What is said to whoever interrupted it."""
        here = f"interrupted while sampling; the fit is written to {target}"
        if checkpoints is None:
            return f"{here}; solver.checkpoint is false, so start again with --overwrite"
        kept = "finished shards are kept, " if self.inference.consensus else ""
        return f"{here}; {kept}continue with --resume"

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds by phase."""
        return {} if self.found is None else dict(plain(self.found).timings)

    def lines(self) -> list[str]:
        """The section of the report."""
        if self.found is None:
            return ["", "Posterior", entry("status", f"none: {self.failure}")]
        return posterior_lines(self.found, self.fit, self._said(self.found), in_toml)

    def _said(self, found: Posterior | ConsensusPosterior) -> tuple[str, ...]:
        return self.inference.lines_after(plain(found).density)

    def write(self, folder: str, plots: bool) -> None:
        """Write the draws and all about them into the folder `bayes` of the results."""
        if self.found is None:
            return
        given = self.inference.settings
        write_bayes(
            os.path.join(folder, "bayes"),
            self.found,
            self.fit,
            self._said(self.found),
            plots=plots and given.plots,
            predictive=given.predictive,
            wording=in_toml,
        )


def sampled(
    inference: Inference,
    fit: Fit,
    checkpoints: Checkpoints | None,
    callback: Callable[[Progress | Outcome], Any] | None = None,
) -> Sampled:
    """Sample from a fit; whatever ends it early is kept as a reason, for the sake of the fit.

    Finished shards are kept beside the checkpoints of the fit.

    **Raises:** `CheckpointError` for finished shards of another problem.
    """
    made = Sampled(inference, fit, None, "", False)
    try:
        return _sampled(made, checkpoints, callback)
    except KeyboardInterrupt:
        made = dataclasses.replace(made, failure="sampling was interrupted", interrupted=True)
    except CheckpointError:
        # Shards of another problem: what was asked for is wrong, and nothing new is lost.
        raise
    except XPCSError as error:
        made = dataclasses.replace(made, failure=in_toml(str(error)))
        log.error("no posterior: %s", made.failure)
    if checkpoints is not None and made.unfinished:
        mark_sampling(checkpoints)
    return made


def _sampled(made: Sampled, checkpoints: Checkpoints | None, callback: Any) -> Sampled:
    inference = made.inference
    fit = inference.fit_for(made.fit)
    folder = None if checkpoints is None else os.path.join(checkpoints.folder, SHARDS)
    found = infer(
        fit,
        inference.priors_for(fit),
        route=inference.route,
        sampler=inference.sampler,
        start=inference.start,
        scaling=inference.treatment,
        noise=inference.noise,
        in_shards=dataclasses.replace(inference.in_shards, folder=folder),
        key=inference.settings.seed,
        callback=callback,
    )
    return dataclasses.replace(made, fit=fit, found=found)
