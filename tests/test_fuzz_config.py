"""Configurations changed at random: each is a configuration, or an error with a place."""

import random
from functools import cache

import pytest
from helpers_data import two_time

from xpcs_eqx.config import Settings, read_configuration, template
from xpcs_eqx.config.section import ANY, keys_of
from xpcs_eqx.config.template import TEMPLATES
from xpcs_eqx.data import write_own
from xpcs_eqx.errors import ConfigError, DataError, ModelError
from xpcs_eqx.program.task import task_of

NUMBERS = (
    "0", "-0.0", "-1", "1", "2", "3", "1e308", "-1e308", "5e-324", "1e-100", "1e100", "-1e100",
    "1e30", "nan", "inf", "-inf", "0.5", "9223372036854775807", "-9223372036854775808",
    "2147483647", "1_000_000_000", "0x" + "f" * 30, "1" * 400, "1" * 5000, "0x" + "f" * 5000,
    "0.9999999999999999", "1e-17",
)  # fmt: skip
TEXTS = (
    "''", "'x'", "'²'", "'\N{GREEK SMALL LETTER ALPHA}'", "'\N{PILE OF POO}'", "'\\n'",
    '"\\u0000"', '"a\\u0000b"', '"\\n"', "'" + "x" * 300 + "'", "'" + "é" * 5000 + "'",
    "'/proc'", "'/dev/null'", "'..'", "'.'", "'~'", "'D0[hot]'", "'alpha'", "'D0'", "'mad'",
    "'auto'", "'parameters.json'",
)  # fmt: skip
OTHERS = (
    "true", "false", "[]", "{}", "[[]]", "[1, 2]", "[2, 1]", "[1.0, nan]", "[-inf, inf]",
    "[1, 'x']", "{a = 1}", "[{}]", "[{D0 = 1.0}]", "1979-05-27T07:32:00Z", "07:32:00",
    "[" * 60 + "]" * 60, "[" * 3000 + "]" * 3000, "{a." + "b." * 200 + "c = 1}",
    "{" + "a = {" * 100 + "}" * 101, "['alpha', 'D0']", "[[0, 90]]", "[0, 1e-30]", "",
    "[" + "1, " * 2000 + "]",
)  # fmt: skip
VALUES = NUMBERS + TEXTS + OTHERS
NAMES = ("D0", "alpha", "D_offset", "contrast", "contrast[0]", "sigma", "²", "x", "transport")
KEYS = tuple(key for key, *_ in keys_of(Settings))


def dotted(rng):
    """A key, mostly one that there is, in places another one."""
    names = [rng.choice(NAMES) if name == ANY else name for name in rng.choice(KEYS)]
    if rng.random() < 0.1:
        odd = ("²", "1", "2", "99999999999", "x.y", "data", "*")
        names.insert(rng.randrange(len(names) + 1), rng.choice(odd))
    return ".".join(f'"{n}"' if not n.isidentifier() or not n.isascii() else n for n in names)


def changed(text, rng):
    """A configuration with a few lines of it changed."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(8)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(rng.randrange(len(lines)), lines[at])
        elif kind == 2 and lines[at].startswith("#"):
            lines[at] = lines[at][1:]
        elif kind == 3:
            lines.insert(at, f"[{dotted(rng)}]")
        elif kind == 4:
            lines.append(f"{rng.choice(VALUES)} = 1")
        elif kind == 5:
            cut = rng.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:cut] + rng.choice("\"'[]{}=.#\\\x00²é\n") + lines[at][cut:]
        else:
            name, equals, _ = lines[at].lstrip("#").partition(" = ")
            if equals:
                lines[at] = f"{name} = {rng.choice(VALUES)}"
    return "\n".join(lines)


@cache
def plain(mode):
    """A template without its prose, of maps that are there."""
    lines = template(mode).splitlines()
    kept = [one for one in lines if one and not one.startswith("# ")]
    return "\n".join(kept).replace("cold.h5", "data.h5").replace("hot.h5", "data.h5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    write_own(str(folder / "data.h5"), two_time(n=12))
    return folder


def outcome(folder, text, overrides, whole):
    """What becomes of a configuration: a report of the check, or the message of an error."""
    (folder / "fit.toml").write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        configuration = read_configuration(str(folder / "fit.toml"), overrides)
        return task_of(configuration).check_report() if whole else "read"
    except (ConfigError, DataError, ModelError) as error:
        return f"error: {error}"


def fuzz(folder, seeds, whole):
    found = {"error": 0, "fine": 0}
    for seed in seeds:
        rng = random.Random(seed)
        text = plain(rng.choice(TEMPLATES))
        overrides = tuple(
            f"{dotted(rng)}={rng.choice(VALUES)}" for _ in range(rng.choice((0, 1, 1, 2)))
        )
        if rng.random() < 0.6:
            text = changed(text, rng)
        try:
            said = outcome(folder, text, overrides, whole)
        except Exception as error:
            raise AssertionError(f"seed {seed}, --set {overrides}\n{text}") from error
        found["error" if said.startswith("error") else "fine"] += 1
    return found
