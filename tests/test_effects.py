"""Settings that nothing would be made of are refused, and those of a finished run are not."""

import tomllib

import pytest

from xpcs_eqx.config import Settings, read_configuration
from xpcs_eqx.config.effects import rules, without_unused
from xpcs_eqx.config.section import SET, UNSET, toml_value
from xpcs_eqx.errors import ConfigError

ONE = '[data]\npath = "data.h5"\n'
TWO = '[[data]]\npath = "a.h5"\n[[data]]\npath = "b.h5"\n'
# What stands for any name, and values that a key may have; 2 where nothing is said.
NAMES = {"rates": "transport", "parameters": "D0"}
VALUES = {
    "model.kernel": '"homodyne"',
    "rates.*.spacing": '"log"',
    "rates.*.times": "[1.0, 2.0]",
    "parameters.*.bounds": "[1.0, 2.0]",
    "parameters.*.tie": '"alpha"',
    "scaling.contrast_bounds": "[0.1, 0.5]",
    "scaling.offset_bounds": "[0.5, 1.5]",
    "solver.precision": '"single_first"',
    "solver.metric": '"jacobian"',
    "solver.profile": '["D0"]',
    "solver.profile_level": "0.9",
    "streaming.memory_fraction": "0.5",
    "defences.monitor.watched": '["D0"]',
    "hybrid.preset": '"aggressive"',
    "hybrid.normalisation": '"start"',
    "hybrid.defences": '"strict"',
    "global.custom": "[{D0 = 1.0}]",
    "global.starts_from": '"earlier.json"',
    "bayes.priors_from": '"earlier.json"',
    "global.sampler": '"sobol"',
    "global.keep": "0.25",
    "global.preset": '"fast"',
    "global.budget": "200",
    "bayes.shards.pairs": "2",
    "bayes.shards.folder": '"x"',
    "output.g2_ages": "[2.0]",
}
# What makes a choice without effect of its own, where leaving it out does not.
OTHERWISE = {
    "model.mode": '"static"',
    "solver.method": '"hybrid"',
    "global.method": '"local"',
    "solver.checkpoint": "false",
    "streaming.strategy": '"in_memory"',
    "defences.monitor.response": '"abort"',
}
ALSO = {
    "scaling.contrast_bounds": {"scaling.mode": '"fixed"'},
    "scaling.offset_bounds": {"scaling.mode": '"fixed"'},
    "rates.*.knots": {"rates.transport.kind": '"spline"'},
    "rates.*.spacing": {"rates.transport.kind": '"spline"'},
}


def named(dotted):
    first, *rest = dotted.split(".")
    return ".".join([first, *(NAMES[first] if one == "*" else one for one in rest)])


def full_choice(key, one):
    return one.choice if "." in one.choice else f"{key.rpartition('.')[0]}.{one.choice}"


def read(tmp_path, keys, start=ONE):
    tables = {}
    for dotted, value in keys.items():
        table, _, name = dotted.rpartition(".")
        tables.setdefault(table, []).append(f"{name} = {value}")
    text = start + "".join(f"[{t}]\n" + "\n".join(lines) + "\n" for t, lines in tables.items())
    path = tmp_path / "fit.toml"
    path.write_text(text)
    return read_configuration(str(path)), text


def without(dotted, one):
    """Keys with which `one` is of no effect, and the same with which it is."""
    choice = full_choice(dotted, one)
    key = {named(dotted): VALUES.get(dotted, "2")}
    set_ = VALUES.get(choice, "2.0")
    if one.values == SET:
        return key, key | {named(choice): set_}
    if one.values == UNSET:
        also = ALSO.get(dotted, {})
        return key | also | {named(choice): set_}, key | also
    otherwise = {named(choice): OTHERWISE[choice]} if choice in OTHERWISE else {}
    if dotted.startswith("hybrid."):
        otherwise = {}
    if choice == "streaming.strategy" and "auto" in one.values and "in_memory" in one.values:
        otherwise = {choice: '"hybrid"'}
    acts = {named(choice): toml_value(one.values[0])}
    if choice == "defences.monitor.response":
        acts |= {"defences.regularisation.target_share": "0.1"}
    return key | otherwise, key | acts


def test_every_key_that_needs_a_choice_is_refused_without_it(tmp_path):
    wrong = []
    for key, one in rules():
        refused, fine = without(key, one)
        read(tmp_path, fine)
        try:
            read(tmp_path, refused)
        except ConfigError as error:
            said = str(error)
        else:
            said = ""
        place = f"fit.toml, line 4: {named(key)} is of no effect"
        if place not in said or named(full_choice(key, one)) not in said:
            wrong.append(f"{key}: {said or 'taken'}")
    assert not wrong, "\n".join(wrong)


def test_what_is_wrong_what_it_needs_and_what_to_do(tmp_path):
    for keys, text in (
        ({"rates.transport.knots": "8"}, 'kind = "power_law"; set rates.transport.kind = "spline"'),
        ({"solver.loss_scale": "1.0"}, 'solver.loss = "linear"; set solver.loss = "soft_l1" or'),
        (
            {"scaling.order": "2"},
            'without scaling.mode; set scaling.mode = "fourier", or leave it out',
        ),
        ({"parameters.D0.factor": "2.0"}, "without parameters.D0.tie; set parameters.D0.tie"),
        ({"solver.profile_level": "0.9"}, "without solver.profile; set solver.profile"),
    ):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, keys)
        assert text in str(caught.value)
    # Each key once, and where it was set.
    (tmp_path / "fit.toml").write_text(ONE + "[scaling]\norder = 3\n")
    with pytest.raises(ConfigError) as caught:
        read_configuration(str(tmp_path / "fit.toml"), ("solver.loss_scale=2", "model.mode=static"))
    first, second = str(caught.value).splitlines()
    assert first.endswith("scaling.order is of no effect without scaling.mode; set scaling.mode = "
                          '"fourier", or leave it out')  # fmt: skip
    assert second.startswith("--set solver.loss_scale=2: solver.loss_scale is of no effect")


def test_several_data_sets(tmp_path):
    kernel = {"model.mode": '"static"', "model.kernel": '"homodyne"'}
    with pytest.raises(
        ConfigError, match=r'model\.kernel is of no effect with model\.mode = "stat'
    ):
        read(tmp_path, kernel, TWO)
    # One of them has shear; a kernel that stands beside another mode has none.
    read(tmp_path, kernel, TWO + 'model = {mode = "laminar_flow"}\n')
    with pytest.raises(ConfigError, match=r"line 5.*data\.2\.model\.kernel is of no effect"):
        read(tmp_path, {}, TWO + 'model = {mode = "static", kernel = "homodyne"}\n')


def test_a_configuration_as_it_ran_can_run_again(tmp_path):
    for keys, start in (
        ({"model.mode": '"static"'}, ONE),
        ({"rates.transport.times": "[1.0]", "rates.transport.kind": '"spline"'}, ONE),
        ({"solver.method": '"hybrid"', "solver.errors": '"dyadic"'}, ONE),
        ({"defences.monitor.ratio": "0.1"}, ONE),
        ({"streaming.strategy": '"in_memory"', "solver.checkpoint": "false"}, ONE),
        ({"model.mode": '"static"'}, TWO + 'model = {mode = "static"}\n'),
    ):
        found, text = read(tmp_path, keys, start)
        whole = Settings.model_validate(tomllib.loads(text)).model_dump(exclude_none=True)
        kept = without_unused(found.settings, whole)
        again = Settings.model_validate(kept)
        lines = [f"{section} = {toml_value(table)}" for section, table in kept.items()]
        (tmp_path / "fit.toml").write_text("\n".join(lines) + "\n")
        assert read_configuration(str(tmp_path / "fit.toml")).settings == again == found.settings
