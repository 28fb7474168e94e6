"""The program: `python -m xpcs_eqx.fit config.toml`.

Exit codes: 0 converged and not poor; 1 finished, but not converged or poor; 2 bad input or
configuration, nothing written; 3 interrupted, a checkpoint written when the fit had begun;
4 internal error, nothing written.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, ConfigError, FitError, XPCSError

NEEDED = ("pydantic", "rich", "tomli_w", "matplotlib")
if missing := [name for name in NEEDED if not find_spec(name)]:
    # Before anything else, so that a missing part never costs a finished fit.
    print(
        f"error: the program needs {', '.join(missing)}; install it with "
        "pip install 'xpcs-eqx[program]'",
        file=sys.stderr,
    )
    sys.exit(2)

from .config import TEMPLATES, Configuration, read_configuration, template  # noqa: E402

if TYPE_CHECKING:
    from .checkpoint import Checkpoints
    from .config.build import Problem
    from .fitting import Fit, ProfileInterval
    from .optimize import TrustRegionState

# Everything slow to import comes in where it is needed, so that a typing mistake in a
# configuration is reported at once.

log = logging.getLogger("xpcs_eqx.fit")

OK, DOUBTFUL, BAD_INPUT, INTERRUPTED, INTERNAL = range(5)

# Of checkpoints nobody asked for [s]: what is fitted faster never sees the disk.
QUIET_INTERVAL = 5.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m xpcs_eqx.fit",
        description="Fit two-time correlation maps and write a results folder.",
        epilog="Exit codes: 0 converged, 1 not converged or poor, 2 bad input, 3 interrupted, "
        "4 internal error.",
    )
    parser.add_argument("config", nargs="?", help="configuration in TOML")
    parser.add_argument("--output", metavar="DIR", help="results folder")
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="change one key of the configuration; may be repeated",
    )
    parser.add_argument("--check", action="store_true", help="check configuration and data only")
    parser.add_argument("--template", choices=TEMPLATES, help="print a commented configuration")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with an interrupted fit; one that left no checkpoint starts anew",
    )
    parser.add_argument("--no-plots", action="store_true", help="write no plots")
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("--quiet", action="store_true", help="print nothing but errors")
    volume.add_argument("-v", "--verbose", action="store_true", help="print every evaluation")
    return parser


@contextlib.contextmanager
def _logging(arguments: argparse.Namespace) -> Iterator[None]:
    """Messages of the library on stderr for the duration of the program."""
    logger = logging.getLogger("xpcs_eqx")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.setLevel(
        logging.ERROR
        if arguments.quiet
        else logging.DEBUG
        if arguments.verbose
        else logging.WARNING
    )
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the program in the same orderly way as Ctrl-C."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:
        # Not in the main thread: whoever started the thread decides.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _progress(arguments: argparse.Namespace) -> Iterator[Any]:
    """A callback for the solver: one line on a terminal, a log entry an evaluation otherwise."""

    def logged(state: "TrustRegionState") -> None:
        log.debug("%s", _progress_text(state))

    if arguments.quiet or arguments.verbose or not sys.stderr.isatty():
        yield logged
        return
    from rich.console import Console

    with Console(stderr=True).status("compiling") as status:

        def shown(state: "TrustRegionState") -> None:
            status.update(_progress_text(state))

        yield shown


def _progress_text(state: "TrustRegionState") -> str:
    return (
        f"evaluation {int(state.evaluations)}: cost {float(state.equations.cost):.8g}, "
        f"gradient {float(state.gradient_measure):.2e}"
    )


def _checkpoints(
    arguments: argparse.Namespace, configuration: Configuration, target: str
) -> "Checkpoints | None":
    """Where the states of this fit go: a folder beside its results.

    **Raises:** `ConfigError` for states of an interrupted fit that would be lost.
    """
    from .checkpoint import Checkpoints

    wanted = configuration.settings.solver.checkpoint
    if wanted is False:
        if arguments.resume:
            raise ConfigError(
                "--resume needs a checkpoint, but solver.checkpoint is false; set it to true, or "
                "leave out --resume"
            )
        return None
    interval = QUIET_INTERVAL if wanted == "auto" else 0.0
    found = Checkpoints(f"{os.path.realpath(target)}.checkpoint", interval=interval)
    if found.paths() and not (arguments.resume or arguments.overwrite):
        raise ConfigError(
            f"{found.folder}: an interrupted fit left its checkpoint here; give --resume to go on "
            "with it, or --overwrite to start from the beginning"
        )
    return found


@contextlib.contextmanager
def _kept(checkpoints: "Checkpoints | None") -> Iterator[None]:
    """Whoever ends a fit before its results are written is told how to go on."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} (--overwrite without --resume starts from the beginning)"
        ) from None
    except BaseException as error:
        if checkpoints is None or not checkpoints.paths():
            raise
        written = f"checkpoint written to {checkpoints.folder}; continue with --resume"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"interrupted; {written}") from None
        log.warning("%s", written)
        raise


def _profiles(fit: "Fit", problem: "Problem") -> tuple[list["ProfileInterval"], list[str]]:
    from .fitting import profile_interval

    intervals, failures = [], []
    for name in problem.settings.solver.profile:
        try:
            level, kind = problem.settings.solver.profile_level, fit.uncertainty.chosen
            intervals.append(profile_interval(fit, name, level, kind=kind))
        except FitError as error:
            failures.append(f"no profile interval of {name}: {error}")
            log.warning(failures[-1])
    return intervals, failures


def _check_report(configuration: Configuration, problem: "Problem") -> str:
    """What --check prints: data and problem in a few lines."""
    data, objective = problem.data, problem.objective
    first, last, q = float(data.t[0]), float(data.t[-1]), float(data.geometry.q)
    free = objective.term.parameters.free_names
    return (
        f"{configuration.source.path}: the configuration and the data are usable\n"
        f"  {data.provenance.where()}: {data.n_angles} angles, {data.n_frames} frames, "
        f"{first:.6g} … {last:.6g} s, q = {q:.6g} 1/Å\n"
        f"  {data.n_pairs} pairs, {data.masked_pairs} masked\n"
        f"  {len(free)} free parameters ({', '.join(free)}), "
        f"{objective.term.scaling.size} scaling coefficients\n"
        f"  scaling {problem.scaling.mode}: {problem.scaling.reason}"
    )


def _say(text: str) -> None:
    """Print on stdout, whatever its encoding; a reader that went away is no error."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), flush=True)
    except BrokenPipeError:
        # As the documentation of `signal` says: nothing is left to fail when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: argparse.Namespace, started: float) -> int:
    overrides = list(arguments.overrides)
    if arguments.no_plots:
        overrides.append("output.plots=false")
    configuration = read_configuration(arguments.config, tuple(overrides))
    target = arguments.output or configuration.output_directory
    import jax

    jax.config.update("jax_enable_x64", True)

    from .config.build import build, quote_errors
    from .config.resolved import resolved_settings
    from .fitting import least_squares
    from .report import check_target, new_results, text_report, write_results

    checkpoints = None
    if not arguments.check:
        check_target(target, arguments.overwrite, (configuration.data_path,))
        checkpoints = _checkpoints(arguments, configuration, target)
    problem = build(configuration)
    if arguments.check:
        if not arguments.quiet:
            _say(_check_report(configuration, problem))
        return OK
    loaded = time.perf_counter()
    if checkpoints is not None and not arguments.resume:
        checkpoints.clear()
    solver = configuration.settings.solver
    with _kept(checkpoints), _progress(arguments) as callback:
        fit = least_squares(
            problem.objective,
            solver=problem.solver,
            recovery=problem.recovery,
            callback=callback,
            checkpoints=checkpoints,
            every=solver.checkpoint_every,
            resume=arguments.resume,
        )
        fit = quote_errors(fit, solver.errors)
        profiles, failures = _profiles(fit, problem)
    report = text_report(
        fit,
        title=f"Fit of {os.path.basename(configuration.data_path)}",
        provenance=problem.data.provenance,
        scaling=f"{problem.scaling.mode}: {problem.scaling.reason}",
        decisions=(*problem.decisions, *failures),
        profiles=profiles,
        timings={"loading": loaded - started},
    )
    with _kept(checkpoints), new_results(target, arguments.overwrite) as folder:
        output = configuration.settings.output
        write_results(
            folder,
            fit,
            report=report,
            provenance=problem.data.provenance,
            configuration=resolved_settings(configuration, problem, target),
            profiles=profiles,
            plots=output.plots,
            fitted_data=output.fitted_data,
            started=started,
        )
    if checkpoints is not None:
        checkpoints.clear()
    if not arguments.quiet:
        _say(f"{report}\nResults: {target}")
    return OK if fit.success and fit.quality.flag != "poor" else DOUBTFUL


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with the given arguments; returns the exit code.

    It switches JAX to double precision for the whole process.
    """
    started = time.perf_counter()
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
        if arguments.config is None and arguments.template is None:
            parser.error("give a configuration, or --template MODE to start from")
    except SystemExit as stop:
        return int(stop.code or 0)
    with _logging(arguments), _terminable():
        try:
            if arguments.template is not None:
                _say(template(arguments.template))
                return OK
            return _run(arguments, started)
        except KeyboardInterrupt as stop:
            print(str(stop) or "interrupted; nothing was written", file=sys.stderr)
            return INTERRUPTED
        except XPCSError as error:
            print(f"error: {error}", file=sys.stderr)
            return BAD_INPUT
        except Exception as error:
            if arguments.verbose:
                traceback.print_exc()
            frame = traceback.extract_tb(error.__traceback__)[-1]
            print(
                f"internal error: {type(error).__name__}: {error} "
                f"({os.path.basename(frame.filename)}, line {frame.lineno}); run with -v for more",
                file=sys.stderr,
            )
            return INTERNAL


if __name__ == "__main__":
    sys.exit(main())
