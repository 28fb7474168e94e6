"""A short configuration filled from a file of maps: `xpcs-eqx init`."""

import argparse
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tomli_w

from ..config.section import toml_value
from ..config.tables.model import MODES, begun_at_data
from ..data import DEFAULT_GAP, PooledData, TwoTimeData
from ..errors import ConfigError
from ..files import write_text
from ..scaling import half_decays
from ..showing import counted
from .looking import data_of, given_reading

# Half-decays of the angles that differ more than this are taken for flow.
_FLOW = 1.3
# Bounds of a start value that the data suggest, as factors.
_ROOM = 1e4


def _key(name: str, value: Any, remark: str = "") -> str:
    # Paths and texts may hold what has to be escaped.
    text = tomli_w.dumps({name: value}).strip() if isinstance(value, str) else ""
    line = text or f"{name} = {toml_value(value)}"
    return f"{line}  # {remark}" if remark else line


def _mode(data: TwoTimeData | PooledData, half: np.ndarray) -> tuple[str, str]:
    """What most likely describes the data, and why that is not sure."""
    ratio = float(np.max(half) / np.min(half))
    said = f"c2 decays {ratio:.2g} times faster at one angle than at another"
    if ratio < _FLOW:
        said = "c2 decays at all angles alike"
    if data.n_angles > 2 and ratio > _FLOW and data.provenance.azimuths:
        return "laminar_flow", f"unsure: {said}"
    alone = data.n_angles == 1
    return "static", "unsure: " + ("one angle cannot show a flow" if alone else said)


def _data_lines(
    path: str, how: Mapping[str, Any], data: TwoTimeData | PooledData, others: list[float]
) -> list[str]:
    lines = ["[data]", _key("path", path)]
    lines += [_key(name, value) for name, value in how.items() if name != "q"]
    q = float(data.geometry.q)
    if others:
        every = ", ".join(f"{one:.6g}" for one in (q, *others))
        lines.append(_key("q", q, f"unsure: [1/Å], of {every}; a table [joint] fits all together"))
    elif "q" in how:
        lines.append(_key("q", how["q"], "[1/Å]"))
    elif not data.provenance.has_q:
        lines.append("#q = 0.0054  # unsure: [1/Å]; without it D0 is twice the rate of c1")
    if not data.provenance.has_times:
        lines.append(
            "#dt = 0.1  # unsure: time between two frames [s]; without it frames are counted"
        )
    if "dt" in how and data.provenance.layout in ("npy", "npz"):
        remark = "unsure: time of frame 1 [s]; it is the age from which rates are counted"
        lines.append(_key("time_origin", how["dt"], remark))
    return lines


def _parameter_lines(mode: str, half: np.ndarray, data: TwoTimeData | PooledData) -> list[str]:
    """Starts where the data decay, for a mode that does not begin there by itself."""
    if begun := begun_at_data(mode):
        verb = "starts" if len(begun) == 1 else "start"
        return ["", f"# {', '.join(begun)} {verb} where the data decay."]
    lines = []
    for name, value in MODES[mode]().starts(half, data.geometry).items():
        start = float(f"{value:.2g}")
        bounds = [float(f"{one:.2g}") for one in (start / _ROOM, start * _ROOM)]
        lines += [
            "",
            f"[parameters.{name}]",
            _key("start", start, "from the half-decay of the data"),
        ]
        lines += [_key("bounds", bounds)]
    if mode.startswith("static"):
        remark = "unsure: true for a rate that levels off with age"
        lines += ["", "[parameters.D_offset]", _key("free", False, remark)]
    return lines


def configuration_text(path: str, shown: str, how: Mapping[str, Any], mode: str | None) -> str:
    """A configuration for a file, with what is unsure said in comments.

    **Arguments:**

    - `path`: of the file; `shown`: as it stands in the configuration.
    - `how`: what was said of how to read it.
    - `mode`: the model; by default what the data look like.

    **Raises:** `DataError` for a file that cannot be used, `ConfigError` for an unknown mode.
    """
    sets = data_of(path, dict(how))
    data, half = sets[0], half_decays(sets[0])
    if mode is not None and mode not in MODES.meant:
        raise ConfigError(f"--model {mode}: there is no such model; {', '.join(MODES.meant)}")
    chosen, doubt = (mode, "") if mode else _mode(data, half)
    t, phi = np.asarray(data.t), np.asarray(data.geometry.phi)
    q, known = float(data.geometry.q), "q" in how or data.provenance.has_q
    angles = ", ".join(f"{one:.4g}" for one in phi[:12]) + (", …" if phi.size > 12 else "")
    lines = [
        "# Written by xpcs-eqx init; what is unsure says so. To fit: xpcs-eqx fit THIS_FILE",
        f"# {data.provenance.layout}: {counted(phi.size, 'angle')} ({angles} deg), "
        f"{t.size} frames, "
        f"{t[0]:.4g} … {t[-1]:.4g}{' s' if data.provenance.has_times else ''}, "
        + (f"q = {q:.6g} 1/Å" if known else "q not known"),
        *_data_lines(shown, how, data, [float(one.geometry.q) for one in sets[1:]]),
    ]
    if "laminar" in chosen and float(data.geometry.gap) == DEFAULT_GAP:
        lines.append(
            "#gap = 2e6  # unsure: [Å], taken where the file has none; shear goes as 1/gap"
        )
    lines += ["", "[model]", _key("mode", chosen, doubt)]
    return "\n".join([*lines, *_parameter_lines(chosen, half, data)]) + "\n"


def write_configuration(arguments: argparse.Namespace) -> str:
    """The text of a configuration, or where it was written.

    **Raises:** as `configuration_text`; `ConfigError` for a file that is there already.
    """
    target, shown = arguments.output, arguments.file
    if target is not None:
        if os.path.lexists(target):
            raise ConfigError(f"{target}: is there already; give another name, or remove it")
        shown = os.path.relpath(shown, os.path.dirname(os.path.abspath(target)))
    text = configuration_text(arguments.file, shown, given_reading(arguments), arguments.model)
    if target is None:
        return text.rstrip("\n")
    write_text(target, text)
    return f"{target}: written; look at what is unsure, then xpcs-eqx fit {target}"
