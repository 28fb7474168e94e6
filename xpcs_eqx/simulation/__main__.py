"""The command `python -m xpcs_eqx.simulation`: a simulated file in any of the known layouts."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ..data import (
    DEFAULT_GAP,
    Geometry,
    TwoTimeData,
    binned,
    write_aps_old,
    write_aps_u,
    write_bins,
    write_npz,
    write_nxxpcs,
    write_own,
)
from ..data.checks import positive
from ..errors import ConfigError, XPCSError
from ..parameters import parameter_values, with_parameters
from ..physics import MODELS, AbstractCorrelation
from ..physics.leaves import parameter_leaves
from .maps import simulate, simulate_speckle

WRITERS = {
    "own": partial(write_own, compression="gzip"),
    "aps-u": write_aps_u,
    "aps-old": write_aps_old,
    "nxxpcs": write_nxxpcs,
    "npz": write_npz,
    "age-lag": lambda path, data: write_bins(path, binned(data)),
}
LAYOUTS = tuple(WRITERS)
# How a layout is told to store the upper triangle only, where it can.
HALF = {
    "aps-u": {"half": True},
    "aps-old": {"half": True},
    "nxxpcs": {"populated_elements": "upper_half"},
}
# With 101 frames of 0.1 s at q = 0.0054 1/Å all of them decide something about the maps.
TRUTH = {
    "D0": 4000.0,
    "alpha": -0.8,
    "D_offset": 1000.0,
    "gamma_dot_t0": 1e-4,
    "beta": 0.8,
    "gamma_dot_t_offset": 2e-4,
    "phi0": 5.0,
}
# The same for the other models, as far as their names differ.
TRUTH_OF_OTHERS = {
    "D0_ref": 1000.0,
    "D0_sample": 8000.0,
    "alpha_sample": -0.3,
    "v0": 2000.0,
    "f0": 0.5,
    "f1": 0.1,
    "f2": 5.0,
    "Gamma0": 0.5,
    "ageing": -0.1,
    "stretch": 1.4,
    "ratio": 15.0,
    "slow": 0.6,
    "w0": 80.0,
    "cage": 100.0,
    "cage_time": 0.3,
}


def parser(program: str = "python -m xpcs_eqx.simulation") -> argparse.ArgumentParser:
    """The arguments of the command, by the name under which it was called."""
    truth = ", ".join(f"{name}={value:g}" for name, value in (TRUTH | TRUTH_OF_OTHERS).items())
    one = argparse.ArgumentParser(
        prog=program,
        description="Write two-time maps simulated from a model.",
        epilog=f"Parameters not given with --set: {truth}. Times run from 0 in steps of --dt.",
    )
    one.add_argument("path", help="file to write; an earlier one is replaced when all went well")
    one.add_argument(
        "--layout", choices=LAYOUTS, default="own", type=lambda name: name.replace("_", "-")
    )
    one.add_argument("--model", choices=tuple(MODELS), default="laminar_flow")
    one.add_argument(
        "--angles",
        default="0,45,90",
        help="azimuths [deg], separated by commas; --angles=-45,45 where the first is negative",
    )
    one.add_argument("--frames", type=int, default=101, help="number of frames")
    one.add_argument("--dt", type=float, default=0.1, help="time between two frames [s]")
    one.add_argument("--q", default="0.0054", help="scattering vectors [1/Å], as angles")
    one.add_argument("--gap", type=float, default=DEFAULT_GAP, help="gap of the shear cell [Å]")
    one.add_argument("--contrast", type=float, default=0.25)
    one.add_argument("--offset", type=float, help="baseline, 1 by default; not with --speckle")
    one.add_argument("--noise", type=float, help="standard deviation of c2, 0.01 by default")
    one.add_argument("--speckle", action="store_true", help="simulate speckle patterns instead")
    one.add_argument("--pixels", type=int, help="pixels at each angle, 4000 by default")
    one.add_argument(
        "--counts", type=float, help="mean count in a pixel and frame; else no Poisson noise"
    )
    one.add_argument("--seed", type=int, default=0, help="same seed, same file")
    one.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="values")
    one.add_argument("--half", action="store_true", help="store the upper triangle only")
    one.add_argument("--single", action="store_true", help="store maps in single precision")
    return one


def _number(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {text!r} is no number.") from error
    if not np.isfinite(value):
        raise ConfigError(f"{option} is {text}; give a finite number.")
    return value


def _numbers(option: str, text: str) -> list[float]:
    return [_number(option, one) for one in text.split(",")]


def _check(given: argparse.Namespace) -> None:
    for name, unit in (("dt", "s"), ("gap", "Å")):
        positive("arguments", f"--{name}", getattr(given, name), unit)
    for q in (qs := _numbers("--q", given.q)):
        positive("arguments", "--q", q, "1/Å")
    if len(qs) > 1 and given.layout not in HALF:
        raise ConfigError(
            f"--q: layout {given.layout} holds one q; several go into {', '.join(HALF)}."
        )
    for name in ("offset", "contrast"):
        value = getattr(given, name)
        if value is not None and not np.isfinite(value):
            raise ConfigError(f"--{name} is {value}; give a finite number.")
    if given.frames < 2:
        raise ConfigError(f"--frames is {given.frames}; a two-time map needs at least two.")
    if given.noise is not None and not (np.isfinite(given.noise) and given.noise >= 0):
        raise ConfigError(f"--noise is {given.noise:g}; it must be finite and not negative.")
    if given.half and given.layout not in HALF:
        raise ConfigError(f"--half: layout {given.layout} stores full maps; leave --half out.")
    with_or_without = "with" if given.speckle else "without"
    for name in ("noise", "offset") if given.speckle else ("pixels", "counts"):
        if getattr(given, name) is not None:
            raise ConfigError(
                f"--{name} has no meaning {with_or_without} --speckle; leave one of the two out."
            )


def truth(name: str, settings: Sequence[str]) -> AbstractCorrelation:
    """The model called `name` with parameters from `NAME=VALUE` settings, else from `TRUTH` or
    `TRUTH_OF_OTHERS`.

    **Raises:** `ConfigError` for a setting that cannot be read, `ModelError` for unknown names.
    """
    model = MODELS[name]()
    known = parameter_values(model)
    values = {key: value for key, value in (TRUTH | TRUTH_OF_OTHERS).items() if key in known}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: write NAME=VALUE, as in D0=4000.")
        values[key.strip()] = _number(f"--set {key.strip()}", text)
    return with_parameters(model, values)


def simulated(
    given: argparse.Namespace, model: AbstractCorrelation, number: int = 0
) -> TwoTimeData:
    """The maps that the arguments of the command ask for, at the q of a number from 0.

    **Raises:** `ConfigError` or `ModelError` for values that make no map.
    """
    angles, q = _numbers("--angles", given.angles), _numbers("--q", given.q)[number]
    geometry = Geometry(q=q, phi=np.array(angles), gap=given.gap)
    t = given.dt * np.arange(given.frames)
    key = jax.random.key(given.seed)
    key = jax.random.fold_in(key, number) if number else key
    if given.speckle:
        pixels = 4000 if given.pixels is None else given.pixels
        counts = given.counts
        data = simulate_speckle(
            model, t, geometry, given.contrast, n_pixels=pixels, mean_counts=counts, key=key
        )
    else:
        offset = 1.0 if given.offset is None else given.offset
        noise = 0.01 if given.noise is None else given.noise
        data = simulate(model, t, geometry, given.contrast, offset, noise=noise, key=key)
    if not bool(jnp.all(jnp.isfinite(data.c2))):
        raise ConfigError(
            "the maps of these parameters are not finite; bring --set values nearer 1."
        )
    values = ", ".join(f"{name} = {float(v):g}" for name, v in parameter_values(model).items())
    notes = (*data.provenance.notes, f"Truth: {values}, contrast = {given.contrast:g}.")
    origin = dataclasses.replace(data.provenance, dt=given.dt, notes=notes)
    maps = jax.tree.map(np.asarray, data)
    dtype = np.float32 if given.single else np.float64
    return dataclasses.replace(maps, c2=maps.c2.astype(dtype), provenance=origin)


def describe(given: argparse.Namespace, model: AbstractCorrelation) -> str:
    """What was simulated, one line for each parameter."""
    values, offset = parameter_values(model), 1.0 if given.offset is None else given.offset
    rows = [(one.name, float(values[one.name]), one.info.unit) for one in parameter_leaves(model)]
    rows += [("contrast", given.contrast, ""), ("offset", offset, "")]
    if given.model == "laminar_flow":
        rows.append(("gap", given.gap, "Å"))
    lines = [f"{given.path}: {given.layout}, {given.frames} frames of {given.dt:g} s"]
    lines += [f"  {name:20s} {value:12g} {unit}".rstrip() for name, value, unit in rows]
    lines.append(f"  {'q':20s} {given.q} 1/Å")
    return "\n".join([*lines, f"  {'angles':20s} {given.angles} deg"])


def main(arguments: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """Run the command; returns the exit code, 2 when the arguments or the file are at fault."""
    given = (parser(program) if program else parser()).parse_args(arguments)
    # a program, so the precision of the process is its own to choose
    jax.config.update("jax_enable_x64", True)
    try:
        _check(given)
        model = truth(given.model, given.values)
        options = HALF[given.layout] if given.half else {}
        sets = [simulated(given, model, k) for k in range(len(_numbers("--q", given.q)))]
        WRITERS[given.layout](given.path, sets if len(sets) > 1 else sets[0], **options)
    except (XPCSError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe(given, model))
    return 0


if __name__ == "__main__":
    sys.exit(main())
