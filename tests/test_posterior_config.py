"""The tables [bayes…]: what is wrong with them is said before any work, in their own words."""

import json
import re
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from helpers_posterior import prepared
from test_likelihood import data_of, squares_of

from xpcs_eqx.bayes import default_priors
from xpcs_eqx.config import (
    Settings,
    Source,
    check_settings,
    inference,
    read_configuration,
    template,
)
from xpcs_eqx.config.build import build
from xpcs_eqx.config.inference import inference_of
from xpcs_eqx.config.tables.bayes import Bayes, Job, Shards
from xpcs_eqx.config.tables.priors import Prior
from xpcs_eqx.errors import ConfigError
from xpcs_eqx.fitting import compare_likelihood

PBS = "[bayes.shards]\nexecutor = 'pbs'\nfolder = 'x'\n[bayes.shards.job]\n"
# What the tables themselves tell: (lines, fragments of the message).
WRONG = {
    "unknown key": ("[bayes]\nwarmup = 3\n", ("'bayes.warmup'", "'bayes.warm_up'")),
    "unknown key of shards": ("[bayes.shards]\ntimout = 3.0\n", ("'bayes.shards.timeout'",)),
    "unknown key of a prior": (
        "[bayes.priors.alpha]\nknd = 'uniform'\n",
        ("'bayes.priors.alpha.knd'", "'bayes.priors.alpha.kind'"),
    ),
    "unknown kind": (
        "[bayes.priors.alpha]\nkind = 'cauchy'\n",
        ("bayes.priors.alpha.kind = 'cauchy'", '"uniform"'),
    ),
    "no kind": ("[bayes.priors.alpha]\nlower = 0.0\n", ("bayes.priors.alpha", "kind is missing")),
    "a number is missing": (
        "[bayes.priors.alpha]\nkind = 'normal'\nmean = 0.0\n",
        ("bayes.priors.alpha", "needs sd"),
    ),
    "a number of another kind": (
        "[bayes.priors.alpha]\nkind = 'uniform'\na = 1.0\n",
        ("has no a", "lower, upper"),
    ),
    "no volume": (
        "[bayes.priors.alpha]\nkind = 'uniform'\nlower = 1.0\nupper = 1.0\n",
        ("between 1 and 1 has no volume", "free = false"),
    ),
    "from the fit and of a kind": (
        "[bayes.priors.alpha]\nkind = 'uniform'\nfrom_fit = true\n",
        ("from_fit has width alone",),
    ),
    "no time": ("[bayes.shards]\ntimeout = 0.0\n", ("bayes.shards.timeout = 0.0", "above zero")),
    "no sign of life": (
        "[bayes.shards]\nheartbeat = 0.0\n",
        ("bayes.shards.heartbeat = 0.0", "above zero"),
    ),
    **{
        f"{given} with the likelihood of speckle": (
            f"[bayes]\nlikelihood = 'auto'\n{key} = '{given}'\n",
            (f'{key} = "{given}" does not go together with likelihood = "auto"',),
        )
        for key, given in (
            ("method", "consensus"), ("scaling", "marginalised"), ("sigma", "given"),
        )
    },
    "two sizes": ("[bayes.shards]\npairs = 9\ncount = 9\n", ("leave one of them out",)),
    "no folder": ("[bayes.shards]\nexecutor = 'pbs'\n", ("needs folder",)),
    "workers of nobody": (
        "[bayes.shards]\nworkers = 3\n",
        ("bayes.shards.workers is of no effect", 'executor = "serial"', '"processes" or "dask"'),
    ),
    "a job of nobody": ("[bayes.shards.job]\njobs = 2\n", ("not to \"serial\"",)),
    "too many processes": (
        "[bayes.shards]\nexecutor = 'pbs'\nfolder = 'x'\n[bayes.shards.job]\ncores = 2\n",
        ("bayes.shards.job", "give a core to each"),
    ),
    "no memory": (
        f"{PBS}memory = 'lots'\n",
        ("bayes.shards.job.memory = 'lots'", 'a number from 1 with MB, GB', '"16GB"'),
    ),
    "memory without unit": (f"{PBS}memory = '16'\n", ("bayes.shards.job.memory = '16'",)),
    "memory of nothing": (f"{PBS}memory = '0GB'\n", ("bayes.shards.job.memory = '0GB'",)),
    "walltime of no form": (
        f"{PBS}walltime = '90 min'\n",
        ("bayes.shards.job.walltime = '90 min'", 'hours:minutes:seconds like "04:00:00"'),
    ),
    "walltime of nothing": (f"{PBS}walltime = '00:00:00'\n", ("walltime", "no time at all")),
    "days of PBS": (
        f"{PBS}walltime = '1-04:00:00'\n",
        ("bayes.shards", "job.walltime = \"1-04:00:00\" has days", '"100:00:00"'),
    ),
    "no cores": (f"{PBS}cores = 0\n", ("bayes.shards.job.cores = 0", "whole number from 1")),
    "cores in words": (f"{PBS}cores = '8'\n", ("bayes.shards.job.cores = '8'", "whole number")),
    "a queue of two words": (
        f"{PBS}queue = 'a b'\n",
        ("bayes.shards.job.queue = 'a b'", "without spaces"),
    ),
    "two lines in one": (
        f'{PBS}directives = ["a\\nb"]\n',
        ("bayes.shards.job.directives = ", "texts of one line"),
    ),
    "no chains": ("[bayes]\nchains = 0\n", ("bayes.chains = 0", "whole number from 2")),
    "marginalised in shards": (
        "[bayes]\nmethod = 'consensus'\nscaling = 'marginalised'\n",
        ("cannot be marginalised",),
    ),
    "no table": ("bayes = 3\n", ("bayes = 3", "a table of keys")),
    "a prior that is no table": ("[bayes.priors]\nalpha = 1.0\n", ("a table of keys",)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_the_tables(tmp_path, case):
    text, fragments = WRONG[case]
    path = tmp_path / "fit.toml"
    path.write_text(f"{text}[data]\npath = 'data.h5'\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_configuration(str(path))
    for fragment in (f"{path}, line ", *fragments):
        assert fragment in str(caught.value), fragment


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    folder = prepared(tmp_path_factory.mktemp("problem"), "")
    return folder, build(read_configuration(str(folder / "fit.toml")))


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (
            ["bayes.priors.alhpa.kind=uniform"],
            ("bayes.priors.alhpa", "did you mean 'bayes.priors.alpha'"),
        ),
        (["bayes.priors.D_offset.kind=uniform"], ("no parameter 'D_offset' is sampled",)),
        (["bayes.priors.sigma.from_fit=true"], ("no error of sigma",)),
        (
            ["bayes.priors.alpha={kind='truncated_normal', mean=0.0, sd=1e-3, lower=1.0}"],
            ("bayes.priors.alpha", "no weight left"),
        ),
        (
            ["bayes.priors.alpha={kind='uniform', lower=3.0}"],
            ("bayes.priors.alpha", "between 3 and 2 has no volume"),
        ),
        (["bayes.sigma=given"], ("bayes.sigma", "data have no sigma")),
        (
            ["bayes.method=consensus", "bayes.shards.count=300"],
            ("--set bayes.shards.count=300", "fewer than the 5 sampled parameters"),
        ),
        (
            ["bayes.method=consensus", "bayes.shards.executor=pbs", "bayes.shards.folder=/nowhere"],
            ("/nowhere is no folder that can be written to",),
        ),
        (
            ["bayes.scaling=marginalised", "bayes.priors.contrast={kind='uniform'}"],
            ("[bayes]", "contrast is a uniform", "a normal prior", 'bayes.scaling = "sampled"'),
        ),
        (
            ["bayes.method=consensus", "bayes.shards.count=200"],
            ("--set bayes.shards.count=200", "sample all data in one run"),
        ),
        (
            ["bayes.priors.D0={kind='log_normal', median=2.0, scale=0.01, lower=3.0, upper=4.0}"],
            ("bayes.priors.D0", "median 2 and scale 0.01 has no weight left between 3 and 4"),
        ),
        (
            ["bayes.priors.D0={kind='log_normal', median=2.0, scale=0.1, lower=1e9}"],
            ("bayes.priors.D0", "log_normal", "between 1e+09 and", "no volume", "free = false"),
        ),
        (
            ["bayes.priors.D0={kind='log_normal', median=2.0, scale=0.1, lower=-3.0}"],
            ("bayes.priors.D0", "lower = -3 of a log_normal prior"),
        ),
        (
            ["bayes.method=single", "bayes.shards.count=3"],
            ("--set bayes.shards.count=3", 'bayes.method = "single" is one run'),
        ),
    ],
)
def test_what_is_wrong_with_the_data_or_the_model(problem, options, fragments):
    folder, built = problem
    with pytest.raises(ConfigError) as caught:
        inference_of(read_configuration(str(folder / "fit.toml"), tuple(options)), built)
    for fragment in fragments:
        assert fragment in str(caught.value), fragment
    # Classes of the library mean nothing in a file.
    assert not re.search(r"\b[A-Z][a-z]+[A-Z]\w+", str(caught.value).replace(str(folder), ""))


def test_shards_that_one_run_does_not_use_are_spoken_of(problem, caplog):
    folder, built = problem
    path = str(folder / "fit.toml")
    configuration = read_configuration(path, ("bayes.shards.count=3",))
    inference = inference_of(configuration, built)
    said = "[bayes.shards] (count) is not used: 828 pairs are no more than 500000: one run"
    assert any(said in line for line in inference.lines)
    assert said in caplog.text
    caplog.clear()
    # The defaults in a configuration as it ran are nothing that was asked for.
    again = read_configuration(path, ("bayes.method=single", 'bayes.shards.executor="serial"'))
    assert not any("not used" in line for line in inference_of(again, built).lines)
    assert not caplog.text


def test_priors_are_told_in_the_words_of_their_tables(problem):
    folder, built = problem
    option = "bayes.priors.D0={kind='log_normal', median=8e4, scale=0.5, lower=1.0, upper=1e6}"
    configuration = read_configuration(str(folder / "fit.toml"), (option,))
    lines = inference_of(configuration, built).lines
    assert "prior of D0: log_normal, median 80000, scale 0.5, lower 1, upper 1e+06" in lines


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (("solver.loss=huber",), ("the likelihood of [bayes] is Gaussian",)),
        (
            ("streaming.strategy=out_of_core",),
            ("needs the maps in memory for one run (828 pairs", 'bayes.method = "consensus"'),
        ),
        (
            ("streaming.strategy=out_of_core", "bayes.method=consensus", "bayes.shards.count=3",
             "bayes.shards.correction=importance"),
            ("--set bayes.shards.correction=importance", "thousands of times"),
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_sampled_is_refused_before_any_work(problem, options, fragments):
    def planned(*options):
        asked = read_configuration(str(problem[0] / "fit.toml"), options)
        return inference_of(asked, build(asked))

    assert planned(*(one for one in options if not one.startswith("bayes"))) is None
    with pytest.raises(ConfigError) as caught:
        planned(*options, "bayes.chains=2")
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.long
def test_the_likelihood_of_speckle_is_sampled_where_it_can_be_used(problem, monkeypatch):
    folder, _ = problem
    asked = read_configuration(str(folder / "fit.toml"), ("bayes.likelihood=speckle",))
    made = inference_of(asked, build(asked))
    assert made.how["method"].threshold is None
    fit = squares_of(data_of())
    found, why = made.fit_for(fit)
    assert "shot[0]" in found.names
    assert why[0].startswith("sampled under the likelihood of speckle: errors were expected")
    made = replace(made, priors=default_priors(fit.objective), from_fit={"D0": 2.0})
    priors = made.priors_for(found)
    assert priors.names == ("D0", "contrast[0]", "offset[0]", "shot[0]")
    assert float(priors["D0"].mean) == found["D0"].value
    # Where it cannot be used, least squares is sampled, and why is said.
    data = data_of()
    holes = np.ones(data.c2.shape)
    holes[0, 3, 5:9] = holes[0, 5:9, 3] = 0.0
    squares = squares_of(replace(data, root_weights=holes))
    found, why = made.fit_for(squares)
    assert found is squares
    assert why[0].startswith("sampled under least squares: it cannot be used")
    # What the solver has compared already is not fitted again.
    compared = compare_likelihood(squares, asked=True)
    monkeypatch.setattr(inference, "compare_likelihood", None)
    found, again = made.fit_for(squares, compared)
    assert found is squares
    assert again == why


def test_shards_are_planned_for_maps_in_their_file(problem):
    path = str(problem[0] / "fit.toml")
    options = ("bayes.method=consensus", "bayes.shards.count=3")
    lines = []
    for more in ((), ("streaming.strategy=out_of_core",)):
        asked = read_configuration(path, (*options, *more))
        made = inference_of(asked, build(asked))
        assert (made.n_pairs, made.n_shards) == (828, 3)
        lines.append([line for line in made.lines if "prior of sigma" not in line])
    assert lines[0] == lines[1]


def test_several_data_sets_are_planned_as_one_is(problem, tmp_path):
    folder, _ = problem
    text = (folder / "fit.toml").read_text(encoding="utf-8").replace("averaged", "individual")
    table = f"[[data]]\npath = '{folder / 'data.h5'}'\nlabel = "
    text = text.replace('[data]\npath = "data.h5"\n', f"{table}'a'\n{table}'b'\n")
    (tmp_path / "fit.toml").write_text(text, encoding="utf-8")

    def planned(*options):
        asked = read_configuration(str(tmp_path / "fit.toml"), options)
        return inference_of(asked, build(asked))

    shards = ("bayes.method=consensus", "bayes.shards.count=3")
    here, stored = planned(*shards), planned(*shards, "streaming.strategy=out_of_core")
    for made in (here, stored):
        assert (made.n_pairs, made.n_shards) == (2 * 828, 3)
        assert made.scaling is None
        assert "consensus of 1656 pairs was asked for" in made.lines
    several = {"averaged": ("contrast[a]", "contrast[b]"), "fixed": ()}
    for word, names in several.items():
        made = planned(f"bayes.scaling={word}")
        assert made.n_shards == 0
        assert len(made.scaling) == 2
        assert {n for n in made.priors.names if n.startswith("contrast")} == set(names)


def earlier(folder, **parameters):
    """A parameters.json with values and errors of parameters."""
    rows = {name: {"value": v, "error": e} for name, (v, e) in parameters.items()}
    path = folder / "earlier.json"
    path.write_text(json.dumps({"parameters": rows}), encoding="utf-8")
    return path


def test_priors_of_an_earlier_fit(problem, tmp_path):
    folder, built = problem
    path = earlier(tmp_path, D0=(8e4, 1e3), alpha=(0.1, 0.02), beta=(0.0, 1.0))
    options = (f"bayes.priors_from={path}", "bayes.priors.alpha={kind='normal', mean=0.0, sd=0.5}")
    lines = inference_of(read_configuration(str(folder / "fit.toml"), options), built).lines
    assert "prior of alpha: normal, mean 0, sd 0.5" in lines
    (d0,) = (line for line in lines if line.startswith("prior of D0"))
    assert "mean 80000, sd 2000" in d0
    assert "default" not in d0
    assert any(line.startswith("prior of contrast") and "(default)" in line for line in lines)
    for text in (f"bayes.priors_from={tmp_path / 'no.json'}", f"bayes.priors_from={__file__}"):
        with pytest.raises(ConfigError, match=r"--set bayes\.priors_from=.*: bayes\.priors_from"):
            inference_of(read_configuration(str(folder / "fit.toml"), (text,)), built)
    strange = earlier(tmp_path, tau=(1.0, 0.1))
    with pytest.raises(ConfigError, match="no value with an error of a parameter sampled"):
        inference_of(
            read_configuration(str(folder / "fit.toml"), (f"bayes.priors_from={strange}",)), built
        )


def test_the_template_shows_every_key_in_comments():
    text = template("laminar_flow")
    assert "bayes" not in tomllib.loads(text)
    given = tomllib.loads(re.sub(r"^#(\[|\w+ = )", r"\1", text, flags=re.MULTILINE))["bayes"]
    tables = {"": Bayes, "shards": Shards, "job": Job, "prior": Prior}
    found = {
        "": given,
        "shards": given["shards"],
        "job": given["shards"]["job"],
        "prior": given["priors"]["alpha"],
    }
    for name, model in tables.items():
        assert set(found[name]) == set(model.model_fields), name
    # What cannot stand together is taken out; every example is a value of its kind.
    prior, shards = given["priors"]["alpha"], given["shards"]
    for name in ("median", "scale", "a", "b", "width"):
        assert isinstance(prior.pop(name), float)
    shards.pop("count")
    shards.pop("workers")
    shards["executor"] = "pbs"
    raw = {"data": {"path": "x"}, "bayes": given}
    settings = check_settings(raw, Source("template", text))
    assert isinstance(settings, Settings)
    assert settings.bayes is not None
