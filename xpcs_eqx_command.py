"""The command `xpcs-eqx`: what may be said to it.

It stands beside the package, since importing that imports JAX: help, versions, mistyped commands
and completions in a shell are answered at once. `xpcs_eqx.__main__` does what is asked for.
"""
# PYTHON_ARGCOMPLETE_OK: argcomplete looks for these words where it is set up for all commands.

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterable, Sequence

EXIT_CODES = (
    "Exit codes: 0 a fit to rely on, 1 a number may be wrong, 2 bad input, 3 interrupted, "
    "4 internal error."
)


def version() -> str:
    """The version that is installed."""
    try:
        return importlib.metadata.version("xpcs-eqx")
    except importlib.metadata.PackageNotFoundError:
        return "of a clone that is not installed"


def add_volume(parser: argparse.ArgumentParser) -> None:
    """How much is said."""
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("--quiet", action="store_true", help="print nothing but errors")
    volume.add_argument("-v", "--verbose", action="store_true", help="print every evaluation")


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="change one key of the configuration; may be repeated",
    )


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """What a file may leave open, by the names that the table [data] has for it."""
    parser.add_argument("file", help="file with two-time maps")
    parser.add_argument("--layout", help="layout, where it is not recognised by itself")
    parser.add_argument("--analysis", help="one of several analyses in the file")
    parser.add_argument("--dt", type=float, help="time between two frames [s]")
    parser.add_argument("--q", type=float, help="scattering vector [1/Å]")
    parser.add_argument("--phi", type=float, nargs="+", help="azimuths [deg], one or one a map")


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", choices=("png", "svg", "pdf"), help="format of the files of plots"
    )


def add_fit(parser: argparse.ArgumentParser, templates: Iterable[str] | None = None) -> None:
    """The arguments of a fit; `templates` are the names of templates where they are known."""
    parser.add_argument("config", nargs="?", help="configuration in TOML")
    parser.add_argument("--output", metavar="DIR", help="results folder")
    _add_set(parser)
    parser.add_argument("--check", action="store_true", help="check configuration and data only")
    parser.add_argument("--template", choices=templates, help="print a commented configuration")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with an interrupted fit; one that left no checkpoint starts anew",
    )
    parser.add_argument("--no-plots", action="store_true", help="write no plots")
    _add_format(parser)
    add_volume(parser)


def _fit(parser: argparse.ArgumentParser) -> None:
    add_fit(parser)
    many = parser.add_argument_group("a series", "one configuration for many files")
    many.add_argument("files", nargs="*", help="files to fit in turn, in place of data.path")
    many.add_argument("--jobs", type=int, default=1, help="files at a time, a process each")
    many.add_argument("--follow", metavar="DIR", help="fit new files of a folder as they come")
    many.add_argument(
        "--from-first",
        action="store_true",
        help="start where the first good fit ended, and look for no other minimum: faster",
    )
    many.add_argument("--each-q", action="store_true", help="fit each q of a file by itself")
    many.add_argument(
        "--about",
        metavar="NAME=PATH",
        action="append",
        default=[],
        help="put the number, time or text at an HDF5 path of each file into the table; "
        "the first one sorts it",
    )


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="configuration in TOML")
    _add_set(parser)
    parser.set_defaults(check=True, template=None, output=None, overwrite=False, resume=False)
    parser.set_defaults(no_plots=False, format=None)
    add_volume(parser)


def _template(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("template", metavar="MODE", help="model, or joint for several data sets")


def _show(parser: argparse.ArgumentParser) -> None:
    _add_reading(parser)
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw maps and c2 against lag into this file, .png, .svg or .pdf",
    )


def _init(parser: argparse.ArgumentParser) -> None:
    _add_reading(parser)
    parser.add_argument("--model", metavar="MODE", help="what describes the data")
    parser.add_argument("-o", "--output", metavar="TOML", help="file to write instead of printing")


def _import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="configuration of homodyne 2.x or xpcsjax, in YAML")


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="results folder, whose plots and page are made anew")
    _add_format(parser)


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="results folders")
    parser.add_argument("--csv", metavar="FILE", help="write the table as well")
    parser.add_argument("--html", metavar="FILE", help="write the table as a page as well")


# What each does and the arguments that it has; none for one that reads its own.
COMMANDS = {
    "show": ("what is in a file of maps", _show),
    "init": ("a short configuration, filled from a file of maps", _init),
    "check": ("check configuration and data, fit nothing", _check),
    "fit": ("fit a configuration and write a results folder", _fit),
    "compare": ("parameters of several results folders side by side", _compare),
    "report": ("draw plots and page of a results folder again", _report),
    "import": ("print a configuration of homodyne 2.x or xpcsjax as one of this program", _import),
    "template": ("a commented configuration with every key", _template),
    "simulate": ("write a simulated file", None),
}


def build_parser() -> argparse.ArgumentParser:
    """The command with all that it may be asked for."""
    parser = argparse.ArgumentParser(
        prog="xpcs-eqx",
        description="Fits of two-time X-ray photon correlation maps.",
        epilog="xpcs-eqx init scan.hdf > fit.toml && xpcs-eqx fit fit.toml; " + EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"xpcs-eqx {version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (meaning, add) in COMMANDS.items():
        # One that reads its own arguments has its own help.
        one = commands.add_parser(
            name, help=meaning, description=meaning.capitalize() + ".", add_help=add is not None
        )
        if add is not None:
            add(one)
    return parser


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks how a line may go on, and end there; nothing where none asks."""
    if "_ARGCOMPLETE" in os.environ:
        # Of the extra `completion`; only a shell that was set up with it asks.
        importlib.import_module("argcomplete").autocomplete(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what is asked for; returns the exit code."""
    parser, given = build_parser(), list(sys.argv[1:] if argv is None else argv)
    _complete(parser)
    own = bool(given) and given[0] in COMMANDS and COMMANDS[given[0]][1] is None
    try:
        # Files may stand behind options: those of a series are as many as there are.
        arguments, rest = parser.parse_known_args(given[:1] if own else given)
        wrong = [one for one in rest if one.startswith("-") or not hasattr(arguments, "files")]
        if wrong:
            parser.error(f"unrecognized arguments: {' '.join(wrong)}")
        if rest:
            arguments.files = [*arguments.files, *rest]
    except SystemExit as stop:
        return int(stop.code or 0)
    from xpcs_eqx.__main__ import run

    return run(arguments, given[1:] if own else ())


if __name__ == "__main__":
    sys.exit(main())
