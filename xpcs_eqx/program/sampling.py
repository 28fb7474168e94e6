"""A posterior after the fit: made, and what is said of it."""

import dataclasses
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..bayes import Posterior, infer
from ..checkpoint import Checkpoints
from ..config.inference import Inference, in_toml
from ..errors import CheckpointError, XPCSError
from ..fitting import Comparison, Fit
from ..report.posterior import posterior_sections
from ..report.sections import Entry, Section
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
    found: Posterior | None
    failure: str
    interrupted: bool

    @property
    def good(self) -> bool:
        """Whether the draws can be used."""
        return self.found is not None and self.found.status == "converged"

    @property
    def unfinished(self) -> bool:
        """Whether going on makes sense: after an interrupt, and with shards that are done."""
        return self.interrupted or (self.found is None and self.inference.n_shards > 0)

    def how_to_go_on(self, target: str, checkpoints: Checkpoints | None) -> str:
        """What is said to whoever interrupted it."""
        here = f"interrupted while sampling; the fit is written to {target}"
        if checkpoints is None:
            return f"{here}; solver.checkpoint is false, so start again with --overwrite"
        kept = "finished shards" if self.inference.n_shards else "the draws so far"
        return f"{here}; {kept} are kept, continue with --resume"

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds by phase."""
        return {} if self.found is None else dict(self.found.timings)

    def sections(self, plots: bool, form: str = "png") -> list[Section]:
        """What there is to say about it; with the draws, which make the folder `bayes`."""
        if self.found is None:
            return [Section("Posterior", [Entry("status", f"none: {self.failure}")])]
        given = self.inference.settings
        return posterior_sections(
            self.found,
            self.fit,
            self.inference.lines_after(self.found.density),
            plots=plots and given.plots,
            form=form,
            predictive=given.predictive,
            wording=in_toml,
        )


def sample_posterior(
    inference: Inference,
    fit: Fit,
    checkpoints: Checkpoints | None,
    progress: bool = False,
    compared: Comparison | None = None,
) -> Sampled:
    """Sample from a fit; whatever ends it early is kept as a reason, for the sake of the fit.

    Finished shards, or the draws so far of one run, are kept beside the checkpoints of the fit.
    `progress`: whether it is shown; `compared`: as in `Inference.fit_for`.

    **Raises:** `CheckpointError` for finished shards of another problem.
    """
    folder = None if checkpoints is None else os.path.join(checkpoints.folder, SHARDS)
    failure, interrupted = "sampling was interrupted", False
    try:
        whole, why = inference.fit_for(fit, compared)
        priors = inference.priors_for(whole)
        found = infer(
            whole,
            dataclasses.replace(priors, notes=(*why, *priors.notes)),
            **inference.how,
            folder=folder,
            key=inference.settings.seed,
            callback=lambda seen: log.debug("%s", seen.summary),
            progress=progress,
        )
        return Sampled(inference, whole, found, "", False)
    except KeyboardInterrupt:
        interrupted = True
    except CheckpointError:
        # Shards of another problem: what was asked for is wrong, and nothing new is lost.
        raise
    except (XPCSError, OSError, MemoryError) as error:
        # Of these the system is to blame for the last two: a full disk, no memory.
        failure = in_toml(str(error)) or "the memory is used up"
        log.error("no posterior: %s", failure)
    made = Sampled(inference, fit, None, failure, interrupted)
    if checkpoints is not None and made.unfinished:
        try:
            mark_sampling(checkpoints)
        except OSError as error:
            log.warning("%s: cannot be written, so nothing is kept: %s", checkpoints.folder, error)
    return made
