"""Configurations changed at random: each is a configuration, or an error with a place."""

import random
import time
from functools import cache

import pytest
from helpers_data import two_time

from xpcs_eqx.config import Settings, read_configuration, template
from xpcs_eqx.config.section import ANY, expected_of, keys_of
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


def test_changed_configurations_are_read_or_refused(folder):
    found = fuzz(folder, range(250), whole=False)
    assert found["error"] > 100
    assert found["fine"] > 10


def test_changed_configurations_are_checked_with_data_or_refused(folder):
    found = fuzz(folder, range(410, 440), whole=True)
    assert found["fine"] > 1


@pytest.mark.long
def test_thousands_of_changed_configurations(folder):
    fuzz(folder, range(440, 6000), whole=True)


# Where a key has an effect.
WITH = {
    "rates": ("rates.transport.kind=spline",),
    "hybrid": ("solver.method=hybrid",),
    "global": ("global.method=auto",),
    "bayes": ("bayes.seed=1",),
    "defences.monitor": ("defences.monitor.watched=['alpha']",),
    "defences.group_variance": ("defences.group_variance={groups=[['D0','alpha']], weight=1.0}",),
}


@pytest.mark.long
@pytest.mark.parametrize("mode", TEMPLATES)
def test_every_value_of_every_key_is_checked_with_data_or_refused(folder, mode):
    chosen = "laminar_flow" if mode == "joint" else mode
    one = "path = 'data.h5'\n"
    data = f"[data]\n{one}" if mode != "joint" else f"[[data]]\n{one}label = 'a'\n[[data]]\n{one}"
    text = f"{data}[model]\nmode = '{chosen}'\n"
    for key in KEYS:
        name = {"parameters": "D0", "rates": "transport", "bayes": "alpha"}.get(key[0], "x")
        names = [name if one == ANY else one for one in key]
        if mode == "joint" and names[0] == "data":
            names.insert(1, "1")
        first = ".".join(names[:2])
        before = WITH.get(first, WITH.get(names[0], ()))
        for value in VALUES:
            try:
                outcome(folder, text, (*before, f"{'.'.join(names)}={value}"), True)
            except Exception as error:
                raise AssertionError(f"{mode}: {'.'.join(names)} = {value[:100]}") from error


def test_every_number_has_an_upper_limit(folder):
    """No whole number and no float reaches what a machine cannot count or multiply."""
    for key, info, _ in keys_of(Settings):
        name = ".".join("transport" if one == ANY else one for one in key)
        whole = ("9223372036854775807",) if "whole" in expected_of(info) else ()
        for value in ("1e308", "-1e308", "1e-320", "1" * 400, *whole):
            said = outcome(folder, f"{BASE}\n", (f"{name}={value}",), False)
            assert said.startswith("error"), f"{name} = {value}"
            assert len(said) < 2000


BASE = "[data]\npath = 'data.h5'"


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("x = " + "{a=" * 5000, "nested too deeply"),
        ("a." * 200_000 + "b = 1", "50 names"),
        ("[" + "a." * 200_000 + "b]", "50 names"),
        ("x = " + "1" * 5000, "digits"),
        ("x = 0x" + "f" * 5000, "too long to be shown"),
        ('[data]\npath = "a\\u0000b"', "data.path = 'a\\x00b' holds a character of value zero"),
        (f"[data]\npath = '{'x' * 5000}'", "5000 characters"),
        (f"{BASE}\n[solver]\n" + "k = 1\n" * 3, "Cannot overwrite"),
        ("\n".join(f"k{i} = {i}" for i in range(20_000)), "and more like these"),
        (
            f"{BASE}\n" + "\n".join(f"[parameters.p{i}]\nfactor = 1" for i in range(2000)),
            "and more",
        ),
        (f"{BASE}\ndt = [{'1, ' * 50_000}]", " … "),
        ("#" * 17_000_000, "larger than 16 MB"),
    ],
    ids=range(13),
)
def test_hostile_files_end_in_a_short_message(folder, text, fragment):
    start = time.process_time()
    said = outcome(folder, text, (), False)
    assert said.startswith("error")
    assert fragment in said
    assert len(said) < 30_000
    # Nothing takes the square of the length of a file.
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    ("option", "fragment"),
    [
        ("data.²=1", "unknown key 'data.²'"),
        ("data.99999999999999999999=1", "unknown key"),
        ("data.path=a\udcffb", "is no text in UTF-8"),
        ("data.dt=5e-324", "0 or from 1e-50 to 1e+50"),
        ("streaming.piece=1e9", "at most 1000000"),
        ("rates.transport.knots=1000000000", "from 2 to 10000"),
        ("solver.max_evaluations=9223372036854775807", "beyond 2147483647"),
        ("bayes.draws=1000000", "kept in memory"),
        ("x." + "y." * 60 + "z=1", "unknown key"),
    ],
)
def test_hostile_options(folder, option, fragment):
    said = outcome(folder, f"{BASE}\n[bayes]\nchains = 900\n", (option,), False)
    assert said.startswith("error")
    assert fragment in said
