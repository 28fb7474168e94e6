"""What the command `xpcs-eqx`, or `python -m xpcs_eqx`, is asked to do; exit codes as of `fit`."""

import argparse
import sys
from collections.abc import Sequence

import xpcs_eqx_command

from . import fit


def _template(arguments: argparse.Namespace) -> int:
    from .config import template

    fit.say(template(arguments.template).rstrip("\n"))
    return fit.OK


def _show(arguments: argparse.Namespace) -> int:
    from .program.looking import show

    fit.say(show(arguments))
    return fit.OK


def _init(arguments: argparse.Namespace) -> int:
    from .program.beginning import write_configuration

    if said := write_configuration(arguments):
        fit.say(said)
    return fit.OK


def _import(arguments: argparse.Namespace) -> int:
    from .program.importing import import_configuration

    fit.say(import_configuration(arguments.config))
    return fit.OK


def _compare(arguments: argparse.Namespace) -> int:
    from .program.comparing import compare

    fit.say(compare(arguments.folders, csv=arguments.csv, html=arguments.html))
    return fit.OK


def _report(arguments: argparse.Namespace) -> int:
    from .program.rendering import render

    fit.say(render(arguments.folder))
    return fit.OK


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
    return fit.carry_out(lambda: WORK[name](arguments), arguments)


if __name__ == "__main__":
    sys.exit(xpcs_eqx_command.main())
