"""The program: `python -m xpcs_eqx.fit config.toml`.

Exit codes: 0 a fit to rely on; 1 finished, with a number that may be wrong; 2 bad input or
configuration, nothing written; 3 interrupted, a checkpoint written when the fit had begun;
4 internal error, nothing written.
"""

import argparse
import contextlib
import gc
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from xpcs_eqx_command import EXIT_CODES, add_fit

from .errors import ConfigError, XPCSError, how_to_install
from .program.ending import BAD_INPUT, DOUBTFUL, INTERNAL, OK, told

# Looked for before anything else, so that a missing part never costs a finished fit.
NEEDED = ("pydantic", "rich", "tomli_w", "matplotlib")

# What is asked of a series alone, and what it is where it is not asked for.
_OF_SERIES = {"each_q": False, "from_first": False, "about": [], "jobs": 1}

# Everything slow to import comes in where it is needed, so that a typing mistake in a
# configuration is reported at once.

log = logging.getLogger("xpcs_eqx.fit")


def _parser() -> argparse.ArgumentParser:
    from .config import TEMPLATES

    parser = argparse.ArgumentParser(
        prog="python -m xpcs_eqx.fit",
        description="Fit two-time correlation maps and write a results folder.",
        epilog=EXIT_CODES,
    )
    add_fit(parser, TEMPLATES)
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
        if getattr(arguments, "quiet", False)
        else logging.DEBUG
        if getattr(arguments, "verbose", False)
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
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the program in the same orderly way as Ctrl-C, whatever becomes of either."""
    seen = []

    def interrupt(number: int, frame: Any) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    def replaced(number: int) -> Any:
        # An interrupt that is ignored, as in the background, stays so.
        if signal.getsignal(number) == signal.SIG_IGN:
            return signal.SIG_IGN
        return signal.signal(number, interrupt)

    try:
        before = {number: replaced(number) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        # Not in the main thread: whoever started the thread decides.
        yield
        return
    try:
        yield
    except Exception as error:
        if seen and not isinstance(error, XPCSError):
            # Libraries below Python make other errors of an interrupt.
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _on_terminal(arguments: argparse.Namespace) -> bool:
    """Whether progress is shown."""
    return not (arguments.quiet or arguments.verbose) and sys.stderr.isatty()


@contextlib.contextmanager
def _progress(arguments: argparse.Namespace) -> Iterator[Any]:
    """A callback for the solver: one line on a terminal, a log entry an evaluation otherwise."""
    from .progress import in_one_line

    def logged(state: Any) -> None:
        log.debug("%s", state.summary)

    with in_one_line(_on_terminal(arguments), logged) as callback:
        yield callback


def say(text: str) -> None:
    """Print on stdout, whatever its encoding; a reader that went away is no error."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), flush=True)
    except BrokenPipeError:
        # As the documentation of `signal` says: nothing is left to fail when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def _overrides(arguments: argparse.Namespace) -> tuple[str, ...]:
    """What the command line says beside the file."""
    more = ["output.plots=false"] if arguments.no_plots else []
    if arguments.format is not None:
        more.append(f"output.plot_format={arguments.format!r}")
    return (*arguments.overrides, *more)


def _run(arguments: argparse.Namespace, started: float) -> int:
    from .config import read_configuration

    configuration = read_configuration(arguments.config, _overrides(arguments))
    target = arguments.output or configuration.output_directory
    import jax
    import numpy as np

    jax.config.update("jax_enable_x64", True)

    from .compiling import compilation_cache

    if configuration.settings.output.compilation_cache:
        compilation_cache()

    from .program.task import task_of
    from .report import claimed

    # All that is slow to import is there: from here on an interrupt has something to save. Numbers
    # that overflow are looked at where they matter, and said of in the report.
    with _interruptible(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if arguments.check:
            task = task_of(configuration)
            undetermined = task.undetermined()
            if not arguments.quiet:
                say(task.check_report(undetermined))
            return DOUBTFUL if undetermined else OK
        with claimed(target):
            return _fit(arguments, configuration, target, started)


def _fit(arguments: argparse.Namespace, configuration: Any, target: str, started: float) -> int:
    """Fit and write results into a folder that is free or may be replaced."""
    from .program.running import fit_into

    ended = fit_into(
        target,
        configuration,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        progress=partial(_progress, arguments),
        on_terminal=_on_terminal(arguments),
        started=started,
    )
    if not arguments.quiet:
        say(ended.text)
    if ended.interrupted:
        raise KeyboardInterrupt(ended.interrupted)
    return OK if ended.good else DOUBTFUL


def _series(arguments: argparse.Namespace) -> int:
    """Fit many files by one configuration."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from .program.series import Series, run_series

    about = dict(one.partition("=")[::2] for one in arguments.about)
    if wrong := [name for name, key in about.items() if not (name and key)]:
        raise ConfigError(f"--about {wrong[0]}: write NAME=PATH, as temperature=entry/sample/T")
    if arguments.jobs < 1 or arguments.resume or arguments.check:
        raise ConfigError(
            "a series takes --jobs of 1 or more; it goes on by itself, without --resume, and each "
            "file is checked when its turn comes, so leave out --check"
        )
    stem = os.path.splitext(arguments.config)[0]
    series = Series(
        arguments.config,
        arguments.output or f"{stem}_series",
        _overrides(arguments),
        arguments.overwrite,
        arguments.jobs,
        about,
        arguments.each_q,
        arguments.from_first,
    )
    told = (lambda line: None) if arguments.quiet else say
    with _interruptible():
        good = run_series(series, arguments.files, told, arguments.follow)
    left = os.path.exists(os.path.join(series.folder, "series.csv"))
    told(f"Results: {series.folder}, with series.csv and series.html" if left else "no results")
    return OK if good else DOUBTFUL


@contextlib.contextmanager
def _rarely_collected() -> Iterator[None]:
    """A context in which unreachable cycles are looked for thirty times less often.

    There are a few hundred thousand objects of modules to look through each time, a sixth of the
    time of a fit with its plots.
    """
    before = gc.get_threshold()
    gc.set_threshold(20_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def carry_out(work: Callable[[], int], arguments: argparse.Namespace) -> int:
    """Work of the program, with its messages; whatever ends it early is said, and an exit code."""
    if missing := [name for name in NEEDED if not find_spec(name)]:
        print(
            f"error: the program needs {', '.join(missing)}; install it with "
            + how_to_install("program"),
            file=sys.stderr,
        )
        return BAD_INPUT
    with _logging(arguments), _rarely_collected():
        try:
            return work()
        except (Exception, KeyboardInterrupt) as error:
            code, said = told(error)
            if code == INTERNAL and getattr(arguments, "verbose", False):
                traceback.print_exc()
            print(said, file=sys.stderr)
            return code


def run(arguments: argparse.Namespace) -> int:
    """Fit, check or print a template, as the arguments of the command say; returns the exit code.

    It switches JAX to double precision for the whole process.
    """
    started = time.perf_counter()

    def work() -> int:
        if arguments.template is not None:
            from .config import template

            say(template(arguments.template))
            return OK
        if arguments.config is None:
            raise ConfigError(
                "give a configuration; write one with `xpcs-eqx init DATA_FILE > fit.toml`"
            )
        if getattr(arguments, "files", ()) or getattr(arguments, "follow", None):
            return _series(arguments)
        for name, default in _OF_SERIES.items():
            if getattr(arguments, name, default) != default:
                option = "--" + name.replace("_", "-")
                raise ConfigError(
                    f"{option} is for a series: name the files behind the configuration"
                )
        return _run(arguments, started)

    return carry_out(work, arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with the given arguments; returns the exit code."""

    def work() -> int:
        parser = _parser()
        arguments = parser.parse_args(argv)
        if arguments.config is None and arguments.template is None:
            parser.error("give a configuration, or --template MODE to start from")
        return run(arguments)

    try:
        return carry_out(work, argparse.Namespace())
    except SystemExit as stop:
        return int(stop.code or 0)


if __name__ == "__main__":
    sys.exit(main())
