"""What the command `xpcs-eqx`, or `python -m xpcs_eqx`, is asked to do; exit codes as of `fit`."""

import argparse
import sys
from collections.abc import Sequence

import xpcs_eqx_command

from . import fit


def _template(arguments: argparse.Namespace) -> str:
    from .config import template

    return template(arguments.template).rstrip("\n")


def _show(arguments: argparse.Namespace) -> str:
    from .program.looking import show

    return show(arguments)


def _init(arguments: argparse.Namespace) -> str:
    from .program.beginning import write_configuration

    return write_configuration(arguments)


def _import(arguments: argparse.Namespace) -> str:
    from .program.importing import import_configuration

    return import_configuration(arguments.config)


def _compare(arguments: argparse.Namespace) -> str:
    from .program.rendering import compare

    return compare(arguments.folders, csv=arguments.csv, html=arguments.html)


def _report(arguments: argparse.Namespace) -> str:
    from .program.rendering import render

    return render(arguments.folder, arguments.format)


# Commands that end with a text.
WORK = {
    "show": _show,
    "init": _init,
    "import": _import,
    "compare": _compare,
    "report": _report,
    "template": _template,
}


def run(arguments: argparse.Namespace, own: Sequence[str] = ()) -> int:
    """Carry out a command; returns the exit code.

    - `own`: the arguments of one that reads them itself.
    """
    name = arguments.command
    if name == "simulate":
        from .simulation.__main__ import main

        return main(own, program="xpcs-eqx simulate")
    if name in ("fit", "check"):
        return fit.run(arguments)

    def work() -> int:
        fit.say(WORK[name](arguments))
        return fit.OK

    return fit.carry_out(work, arguments)


if __name__ == "__main__":
    sys.exit(xpcs_eqx_command.main())
