"""Configuration: the schema, its messages, command-line overrides, templates, objects."""

import re
import tomllib
from importlib import import_module

import numpy as np
import pytest
from helpers_data import two_time
from pydantic.fields import FieldInfo

from xpcs_eqx.config import (
    Settings,
    Source,
    check_settings,
    read_configuration,
    template,
)
from xpcs_eqx.config.build import build
from xpcs_eqx.config.inference import in_toml
from xpcs_eqx.config.read import parse_override, read_source
from xpcs_eqx.config.resolved import resolved_settings
from xpcs_eqx.config.section import Choice, expected_of, keys_of, said_of, tables_of
from xpcs_eqx.config.tables import PATHS
from xpcs_eqx.config.tables.data import Data
from xpcs_eqx.config.tables.model import Model, Rate, begun_at_data, model_of, offsets_of
from xpcs_eqx.config.template import MODES
from xpcs_eqx.data import write_npz, write_own
from xpcs_eqx.errors import ConfigError
from xpcs_eqx.objective import Cauchy, JointObjective, LogSmoothness, ProjectedObjective, noise_of
from xpcs_eqx.optimize import JacobianMetric, TrustRegion
from xpcs_eqx.parameters import SignedSlope
from xpcs_eqx.physics import (
    ExponentialRate,
    Homodyne,
    PiecewiseConstantRate,
    SplineRate,
    Trapezoid,
)
from xpcs_eqx.scaling import Averaged, Fixed, Fourier, Individual


def write(folder, text, name="fit.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def message_of(folder, text, *overrides):
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        read_configuration(path, overrides)
    return path, str(caught.value)


DATA = '[data]\npath = "data.h5"\n'

WRONG = {
    "unknown key": (
        "[solver]\nmax_evaluation = 3\n",
        ("line 4", "'solver.max_evaluation'", "'solver.max_evaluations'"),
    ),
    "unknown section": (
        "[solvers]\nloss = 'huber'\n",
        ("line 3", "unknown key 'solvers'", "'solver'"),
    ),
    "key of another section": ("[model]\ndt = 0.1\n", ("'model.dt'", "did you mean 'data.dt'")),
    "key of a parameter": (
        "[parameters.D0]\nstrt = 1.0\n",
        ("line 4", "'parameters.D0.strt'", "'parameters.D0.start'"),
    ),
    "inline table": ("[parameters]\nD0 = {bound = [1, 2]}\n", ("line 4", "'parameters.D0.bounds'")),
    "wrong type": (
        "[solver]\nmax_evaluations = 'many'\n",
        ("line 4", "solver.max_evaluations", "'many'", "whole number from 1"),
    ),
    "a number as text": (
        "[solver]\ncost_tol = '1e-8'\n",
        ("solver.cost_tol", "'1e-8'", "number above zero"),
    ),
    "truth value": ("[output]\nplots = 1\n", ("output.plots", "= 1", "true or false")),
    "range": ("[solver]\nprofile_level = 1.5\n", ("profile_level", "1.5", "between 0 and 1")),
    "misspelt choice": (
        "[model]\nmode = 'laminar'\n",
        ("model.mode", "'laminar'", "did you mean 'laminar_flow'"),
    ),
    "bounds inside out": (
        "[parameters.D0]\nbounds = [5.0, 1.0]\n",
        ("parameters.D0", "[5, 1]", "inside out"),
    ),
    "contrast bounds": (
        "[scaling]\ncontrast_bounds = [0.8, 0.1]\n",
        ("contrast_bounds", "[0.8, 0.1]", "inside out", "line 3"),
    ),
    "three bounds": (
        "[parameters.D0]\nbounds = [1.0, 2.0, 3.0]\n",
        ("parameters.D0.bounds", "[lower, upper]"),
    ),
    "not a number": ("[parameters.D0]\nstart = nan\n", ("parameters.D0.start", "nan", "finite")),
    "no table": ("scaling = 3\n", ("scaling = 3", "table")),
    "values without their mode": ("[scaling]\ncontrast = 0.3\n", ("scaling", '"fixed"')),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_place_and_remedy(tmp_path, case):
    text, fragments = WRONG[case]
    # A bare key belongs before the first table.
    whole = text + DATA if case == "no table" else DATA + text
    path, message = message_of(tmp_path, whole)
    assert path in message
    for fragment in fragments:
        assert fragment in message


def test_every_mistake_is_reported_at_once(tmp_path):
    _, message = message_of(tmp_path, DATA + "[solver]\nlos = 1\ncost_tol = -1.0\n")
    assert len(message.splitlines()) == 2
    assert "solver.los" in message
    assert "solver.cost_tol = -1.0" in message


def test_missing_data_path_and_missing_files(tmp_path):
    assert "'data.path' is missing" in message_of(tmp_path, "[data]\ndt = 0.1\n")[1]
    assert "'data.path' is missing" in message_of(tmp_path, "")[1]
    assert "not valid TOML" in message_of(tmp_path, "[data\n")[1]
    assert "line 1" in message_of(tmp_path, "[data\n")[1]
    with pytest.raises(ConfigError, match=r"nowhere\.toml: there is no such .*--template"):
        read_configuration(str(tmp_path / "nowhere.toml"))


def test_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inner").mkdir()
    path = write(tmp_path / "inner", DATA + "[solver]\nloss = 'huber'\nmetric = 'jacobian'\n")
    found = read_configuration(
        path,
        ("solver.loss=cauchy", "data.frames=[2, 5]", "parameters.D0.free=false", "data.path=a.h5"),
    )
    settings = found.settings
    assert settings.solver.loss == "cauchy"
    assert settings.solver.metric == "jacobian"
    assert settings.solver.method == "levenberg_marquardt"
    assert settings.data.frames == [2, 5]
    assert settings.parameters["D0"].free is False
    # In the file a path starts from the file, on the command line from the current folder.
    assert found.data_path == str(tmp_path / "a.h5")
    assert read_configuration(path).data_path == str(tmp_path / "inner" / "data.h5")
    assert found.output_directory == str(tmp_path / "inner" / "fit_results")


@pytest.mark.parametrize(
    ("option", "fragments"),
    [
        ("solver.los=huber", ("--set solver.los=huber", "'solver.loss'")),
        ("data.dt=-1", ("--set data.dt=-1", "number above zero")),
        ("dt=1", ("--set dt=1", "section.key=value")),
        ("data.dt", ("section.key=value",)),
        ("data.path.x=1", ("data.path is a value",)),
        ("data.2.path=x", ("--set data.2.path=x", "unknown key 'data.2'")),
    ],
)
def test_wrong_overrides(tmp_path, option, fragments):
    _, message = message_of(tmp_path, DATA, option)
    for fragment in fragments:
        assert fragment in message


def test_line_numbers_of_tables_and_dotted_keys():
    text = (
        "a = 1\n[data]\npath = 'x'\n\n[ parameters . D0 ]\nstart = 1\n[parameters]\nb.free = true\n"
    )
    source = Source("f", text)
    assert source.where("data.path") == "f, line 3"
    assert source.where("parameters.D0.start") == "f, line 6"
    assert source.where("parameters.D0.scale") == "f, line 5"
    assert source.where("parameters.b.free") == "f, line 8"
    assert source.where("nothing") == "f"


@pytest.mark.parametrize("mode", MODES)
def test_templates_are_valid_and_explain_every_key(tmp_path, mode):
    text = template(mode)
    settings = check_settings(tomllib.loads(text), Source("template", text))
    assert settings.model.mode == mode
    start = {name: p.start for name, p in settings.parameters.items()}
    begun = begun_at_data(mode)
    if begun:
        # Only those that start where the data decay have no number.
        assert [name for name, value in start.items() if value is None] == list(begun)
        assert settings.parameters[next(iter(offsets_of(mode)))].free is False
    else:
        assert start["D0_sample" if mode == "two_component" else "D0"] == 1e4
    assert ("phi0" in start) == (mode in ("laminar_flow", "two_component"))
    # Kept where the program puts it as long as nothing is said.
    assert "f2" not in start
    # Uncommented as a whole it still is valid, so every example is.
    opened = re.sub(r"^#(\[|\w+ = )", r"\1", text, flags=re.MULTILINE)
    raw = tomllib.loads(opened)
    for section, info in Settings.model_fields.items():
        if section not in ("parameters", "rates", "bayes", "defences", "joint"):
            assert set(raw[section]) == set(next(tables_of(info.annotation)).model_fields)
    # Of these not every key can stand beside the others.
    assert set(raw["data"]) == set(Data.model_fields)
    del raw["bayes"], raw["defences"]
    first = next(iter(raw["rates"].values()))
    assert set(first) == set(Rate.model_fields)
    first["kind"] = "spline"
    raw["scaling"]["mode"] = "fixed"
    check_settings(raw, Source("template", opened))


def test_unknown_template():
    with pytest.raises(ConfigError, match=r"two_fluid.*laminar_flow"):
        template("two_fluid")


@pytest.fixture
def problem(tmp_path):
    write_own(str(tmp_path / "data.h5"), two_time(n=16))

    def make(text="", *overrides):
        return build(read_configuration(write(tmp_path, DATA + text), overrides))

    return make


def test_scaling_modes_choose_classes(problem):
    static = "[model]\nmode = 'static'\n[scaling]\n"
    found = problem(static)
    assert isinstance(found.scalings[0].scaling, Individual)
    assert "eliminated exactly" in found.scalings[0].reason
    isotropic = problem("[model]\nmode = 'static_isotropic'\n")
    assert isinstance(isotropic.scalings[0].scaling, Averaged)
    assert isinstance(problem(static + "mode = 'auto_threshold'\n").scalings[0].scaling, Averaged)
    fourier = problem(static + "mode = 'fourier'\norder = 1\ncontrast_bounds = [0.2, 0.5]\n")
    assert isinstance(fourier.scalings[0].scaling, Fourier)
    assert fourier.scalings[0].scaling.contrast_bounds == (0.2, 0.5)
    fixed = problem(static + "mode = 'fixed'\ncontrast = [0.1, 0.2, 0.3]\noffset = 1\n")
    assert isinstance(fixed.scalings[0].scaling, Fixed)
    np.testing.assert_allclose(fixed.scalings[0].scaling.contrast, [0.1, 0.2, 0.3])
    mean = problem(static + "mode = 'fixed_averaged'\n")
    assert "quantiles" in mean.scalings[0].reason
    assert np.ptp(np.asarray(mean.scalings[0].scaling.contrast)) == 0
    bounded = problem(static + "offset_bounds = [0.9, 1.1]\n").scalings[0].scaling
    assert bounded.offset_bounds == (0.9, 1.1)


def test_too_few_angles_for_fourier_falls_back_with_a_warning(problem, caplog):
    found = problem("[scaling]\nmode = 'fourier'\norder = 2\n")
    assert found.scalings[0].mode == "individual"
    assert "needs 5 angles" in found.scalings[0].reason
    assert "needs 5 angles" in caplog.text


def test_model_kernel_and_integral():
    model = model_of(Model(mode="laminar_flow", kernel="homodyne", integral="trapezoid"))
    assert isinstance(model.shear_kernel, Homodyne)
    assert isinstance(model.transport, Trapezoid)
    assert isinstance(model.shear, Trapezoid)


def test_solver_fields_and_losses(problem):
    found = problem(
        "[solver]\ncost_tol = 1e-6\nmax_evaluations = 7\nmetric = 'jacobian'\nrecovery = 1\n"
        "method = 'dogleg'\nangle_weights = [1, 0.5, 2]\n"
    )
    assert found.solver.cost_tol == 1e-6
    assert found.solver.max_evaluations == 7
    assert found.solver.step_tol == TrustRegion().step_tol
    assert isinstance(found.solver.metric, JacobianMetric)
    assert type(found.solver.descent).__name__ == "DoglegDescent"
    assert found.recovery.attempts == 1
    weights = np.asarray(found.objective.term.tiles.root_angle_weights)
    np.testing.assert_allclose(weights**2, [1, 0.5, 2])
    assert isinstance(found.objective, ProjectedObjective)
    robust = problem("[solver]\nloss = 'cauchy'\nloss_scale = 0.25\n").objective
    assert isinstance(robust, JointObjective)
    assert isinstance(robust.loss, Cauchy)
    assert float(robust.loss.scale) == 0.25


def test_a_robust_loss_bends_at_the_noise(problem):
    found = problem("[solver]\nloss = 'huber'\n")
    assert 0.005 < float(found.objective.loss.scale) < 0.02  # noise of the helper is 0.01
    assert "estimated from the maps" in found.decisions[0]
    given = problem("[solver]\nloss = 'huber'\n", "data.sigma=0.02")
    assert float(given.objective.loss.scale) == 1.0


def test_parameters_reach_the_map(problem):
    found = problem(
        "[parameters]\nD0 = {start = 20.0, bounds = [10.0, 30.0], scale = 5.0}\n"
        "alpha = {free = false, start = 0.5}\nD_offset = {bounds = [3.0, 3.0]}\n"
    )
    parameters = found.objective.term.parameters
    assert parameters.free_names == ("D0", "gamma_dot_t0", "beta", "gamma_dot_t_offset", "phi0")
    assert float(parameters.lower[0]) == 10.0
    assert float(parameters.start[0]) == 20.0
    assert float(parameters.coordinate_scale[0]) == 5.0
    transport = parameters.model.transport
    assert float(transport.exponent) == 0.5
    assert float(transport.offset) == 3.0


def test_ties_and_coordinates_reach_the_map(problem):
    found = problem(
        "[parameters]\nbeta = {tie = 'alpha', factor = -1.0}\n"
        "[solver]\ncoordinates = 'signed_slope'\n"
    )
    parameters = found.objective.term.parameters
    assert "beta" not in parameters.free_names
    assert any(isinstance(group.bijection, SignedSlope) for group in parameters.groups)
    model = parameters.build(np.full(parameters.n_free, 0.25))
    assert float(model.shear.exponent) == -0.25


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("[parameters.D1]\nfree = false\n", ("line 3", "'D1'", "'parameters.D0'")),
        ("[parameters.D0]\nstart = -5.0\n", ("[parameters]", "-5", "outside its bounds")),
        ("[parameters.beta]\ntie = 'alfa'\n", ("line 4", "'alfa'", "'alpha'")),
        ("[parameters.beta]\ntie = 'beta'\n", ("line 4", "cannot be tied to 'beta'")),
        ("[solver]\nprofile = ['D1']\n", ("line 4", "'D1'", "'D0'")),
        ("[solver]\nangle_weights = [1, 2]\n", ("line 4", "2 entries", "3 angles")),
        ("[scaling]\nmode='fixed'\ncontrast = [0.1, 0.2]\n", ("2 values", "3 angles")),
    ],
)
def test_mistakes_that_only_data_and_model_show(problem, text, fragments):
    with pytest.raises(ConfigError) as caught:
        problem(text)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_selection_reaches_the_data(problem):
    data = problem(
        "frames = [3, -1]\nphi_ranges = [[20, 40]]\nbad_frames = [4]\nmin_lag = 2\nmax_lag = 9\n"
        "sigma = 0.01\n[model]\nmode = 'static'\n"
    ).data[0]
    assert data.n_angles == 2
    assert data.n_frames == 14
    assert data.absolute_sigma
    assert data.masked_pairs > 0
    assert data.provenance.frames == (3, 16)


def test_bare_maps_take_q_and_phi_from_the_configuration(tmp_path):
    np.save(tmp_path / "map.npy", two_time(n=16).c2[:2])
    path = write(
        tmp_path, "[data]\npath='map.npy'\nq=0.01\nphi=[0, 90]\ndt=0.5\n[model]\nmode='static'\n"
    )
    data = build(read_configuration(path)).data[0]
    assert float(data.geometry.q) == 0.01
    np.testing.assert_allclose(data.geometry.phi, [0, 90])
    np.testing.assert_allclose(data.dt, 0.5)


def test_resolved_settings_run_again_from_another_folder(tmp_path):
    import tomli_w

    write_npz(str(tmp_path / "data.npz"), two_time(n=16))
    path = write(
        tmp_path,
        "[data]\npath='data.npz'\n[parameters.alpha]\nfree=false\n[scaling]\nmode='auto'\n",
    )
    configuration = read_configuration(path)
    problem = build(configuration)
    folder = tmp_path / "deep" / "results"
    folder.mkdir(parents=True)
    settings = resolved_settings(configuration, problem, str(folder))
    assert settings["scaling"]["mode"] == "individual"
    assert settings["solver"]["max_evaluations"] == TrustRegion().max_evaluations
    assert settings["parameters"]["D0"]["bounds"] == [1.0, 1e6]
    again = read_configuration(write(folder, tomli_w.dumps(settings), "config.toml"))
    assert again.data_path == str(tmp_path / "data.npz")
    same = build(again)
    assert same.objective.names == problem.objective.names
    assert resolved_settings(again, same, str(folder)) == settings


def test_rates_are_chosen_by_kind(problem):
    text = (
        "[model]\nmode = 'laminar_flow'\n"
        "[rates.transport]\nkind = 'spline'\nknots = 5\nsmoothness = 0.5\n"
        "[rates.shear]\nkind = 'piecewise_constant'\ntimes = [0.4, 0.9]\n"
        "[parameters.J]\nstart = 2e4\nbounds = [10.0, 1e6]\n"
        "[parameters.'J[1]']\nstart = 3e4\n"
    )
    term = problem(text).objective.term
    model = term.parameters.model
    assert isinstance(model.transport, SplineRate)
    np.testing.assert_allclose(np.ptp(model.transport.knots), np.ptp(term.t))
    np.testing.assert_allclose(model.transport.values, [2e4, 3e4, 2e4, 2e4, 2e4])
    assert set(term.parameters.lower[:5]) == {10.0}
    assert isinstance(model.shear, PiecewiseConstantRate)
    np.testing.assert_allclose(model.shear.breaks, [0.4, 0.9])
    (penalty,) = problem(text).objective.penalties
    assert isinstance(penalty, LogSmoothness)
    # As asked for; what residuals are measured in does not matter.
    assert float(penalty.width) == 0.5
    assert float(term.noise) == pytest.approx(noise_of(term.tiles))


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("[rates.sheer]\nkind = 'spline'\n", ("unknown rate 'sheer'", "'rates.shear'")),
        ("[rates.shear]\nkind = 'splin'\n", ("rates.shear.kind", "did you mean 'spline'")),
        ("[rates.shear]\nknot = 3\n", ("rates.shear.knot", "'rates.shear.knots'")),
        (
            "[rates.shear]\nsmoothness = 1.0\n",
            ("rates.shear.smoothness is of no effect", 'kind = "spline"'),
        ),
        ("[rates.shear]\nkind = 'spline'\ntimes = [2.0, 1.0]\n", ("[2.0, 1.0] must increase",)),
        ("[rates.shear]\nkind = 'spline'\ntimes = [1.0]\n", ("[rates]", "increasing times")),
    ],
    ids=["name", "kind", "key", "smoothness", "order", "one knot"],
)
def test_wrong_rates_are_named(problem, text, fragments):
    with pytest.raises(ConfigError) as raised:
        problem(text)
    for fragment in fragments:
        assert fragment in str(raised.value)


def test_two_components_keep_f2(problem):
    found = problem("[model]\nmode = 'two_component'\n[rates.reference]\nkind = 'exponential'\n")
    parameters = found.objective.term.parameters
    t = np.asarray(found.data[0].t)
    assert "f2" not in parameters.free_names
    assert float(parameters.model.f2) == pytest.approx(0.5 * (t[0] + t[-1]))
    assert any("f2" in text for text in found.decisions)
    assert isinstance(parameters.model.reference, ExponentialRate)
    freed = problem("[model]\nmode = 'two_component'\n[parameters.f2]\nfree = true\n")
    assert "f2" in freed.objective.term.parameters.free_names


def test_a_key_is_blamed_where_it_was_set(tmp_path):
    path = write(tmp_path, DATA + "[bayes]\nchains = 3\n[bayes.shards]\ncount = 2\n")
    given = {("bayes", "seed"): "bayes.seed=3", ("solver", "loss"): "solver.loss=huber"}
    source = Source(path, (tmp_path / "fit.toml").read_text(), given)
    # Another key of the command line says nothing of a table that the file has.
    for key, line in (("bayes", 3), ("bayes.chains", 4), ("bayes.shards.count", 6)):
        assert source.where(key) == f"{path}, line {line}"
    assert source.where("bayes.seed") == "--set bayes.seed=3"
    # A table that the command line has opened alone, and what it put there as a whole.
    assert source.where("solver") == source.where("solver.loss") == "--set solver.loss=huber"
    assert Source(path, "", {("a", "b"): "a.b={c=1}"}).where("a.b.c") == "--set a.b={c=1}"
    assert source.where("solver.metric") == path
    # The last one wins.
    source, _ = read_source(
        path, ("solver.loss=huber", "solver.metric=jacobian", "solver.loss=cauchy")
    )
    assert source.where("solver.loss") == source.where("solver") == "--set solver.loss=cauchy"
    whole = read_source(path, ("bayes.shards.count=2", "bayes.shards={count=3}"))[0]
    assert whole.where("bayes.shards.count") == "--set bayes.shards={count=3}"


def test_paths_of_the_command_line_start_from_the_current_folder(tmp_path, monkeypatch):
    assert {("data", "path"), ("output", "directory"), ("bayes", "shards", "folder")} < set(PATHS)
    # On the nodes of a cluster, where nothing of this machine is known.
    assert ("bayes", "shards", "job", "scratch") not in PATHS
    path = write(tmp_path, DATA)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for key in PATHS:
        dotted = ".".join(key)
        for text, wanted in (
            ("x", here / "x"),
            ("../x", tmp_path / "x"),
            ("~/x", tmp_path / "home/x"),
        ):
            assert parse_override(f"{dotted}={text}") == (key, str(wanted))
        if len(key) > 2:
            table = f"{{{key[-1]} = 'x'}}"
            found = parse_override(f"{'.'.join(key[:-1])}={table}")[1]
            assert found == {key[-1]: str(here / "x")}
    assert parse_override("data.2.path=x")[1] == str(here / "x")
    assert parse_override("data.2.label=x")[1] == "x"
    shards = "bayes.shards={folder='x', executor='processes'}"
    source, raw = read_source(path, (shards,))
    given = Settings.model_validate(raw)
    assert source.absolute(given.bayes.shards.folder) == str(here / "x")


def test_words_of_the_library_become_words_of_the_file():
    said = {
        "or sample with anchor=NoAnchor()": 'or sample with bayes.shards.anchor = "none"',
        "use LaplaceStart(), or NoAnchor()": (
            'use bayes.start = "laplace", or bayes.shards.anchor = "none"'
        ),
        "give combiner=MultimodalConsensus()": 'give bayes.shards.combiner = "multimodal"',
        "allow it with Limits(success=…)": "allow it with bayes.shards.success",
        "limits=Limits(timeout=5.0)": "bayes.shards.timeout",
        "take sampler=Nuts(max_depth=12)": "take bayes.depth",
        "run longer (warmup, draws); when": "run longer (bayes.warm_up, bayes.draws); when",
        "with consensus() or": 'with bayes.method = "consensus" or',
        'set bayes.shards.anchor = "none"': 'set bayes.shards.anchor = "none"',
    }
    assert {text: in_toml(text) for text in said} == said


def test_a_layout_may_be_spelt_as_in_python(tmp_path):
    path = write(tmp_path, DATA + 'layout = "aps_u"\n')
    assert read_configuration(path).settings.data.layout == "aps-u"


def test_every_word_stands_for_something_there_is():
    choices = [
        (path, one)
        for path, info, _ in keys_of(Settings)
        for one in info.metadata
        if isinstance(one, Choice)
    ]
    assert len(choices) > 15
    for path, one in choices:
        assert len(one.meant) > 1, path
        for word, meant in one.meant.items():
            assert meant is one[word]
            assert meant is None or callable(meant), (path, word)
    priors = dict(choices)[("bayes", "shards", "combiner")]
    assert priors.word(priors["multimodal"]) == "multimodal"


def test_what_is_expected_follows_from_the_type():
    declared = {path: info for path, info, _ in keys_of(Settings)}
    for path, words in {
        ("solver", "checkpoint"): 'true, false or "auto"',
        ("solver", "cost_tol"): "a number above zero",
        ("solver", "profile_level"): "a number between 0 and 1",
        ("global", "starts"): "a whole number from 1 to 100000",
        ("global", "keep"): "a number above 0, at most 1",
        ("streaming", "memory_fraction"): "a number from 0.1 to 0.9",
        ("data", "sigma"): 'a number above zero or "mad"',
        ("data", "time_origin"): "a finite number",
        ("data", "bad_frames"): '"auto", "off" or a list of whole numbers from 1',
        ("bayes", "shards", "anchor"): '"auto", "laplace" or "none"',
        ("bayes", "shards"): "a table of keys",
    }.items():
        assert expected_of(declared[path]) == words
    for path, info in declared.items():
        text = expected_of(info)
        assert text, path
        # Words of its own only where they say more than the type does.
        own = said_of(info).get("expected")
        plain = FieldInfo.merge_field_infos(info, json_schema_extra=None)
        assert own is None or own != expected_of(plain), path


# Defaults that a table writes down although a class of the library has them: where they are.
SAME = {
    ("bayes",): ("bayes.Nuts", {"chains": "chains", "warm_up": "warmup", "draws": "draws",
                                "depth": "max_depth", "target_acceptance": "target_acceptance"}),
    ("bayes", "shards"): ("bayes.Limits", dict.fromkeys(("retries", "timeout", "heartbeat",
                                                         "success"))),
    ("bayes", "shards", "job"): ("bayes.JobSettings", dict.fromkeys((
        "jobs", "cores", "processes", "memory", "queue", "account", "walltime", "interface",
        "scratch"))),
    ("defences",): ("defences.DefenceLayers", dict.fromkeys(("rounds", "tolerance"))),
    ("defences", "hierarchical"): ("defences.Hierarchical", dict.fromkeys(("outer", "tolerance"))),
    ("defences", "regularisation"): ("defences.RelativeRegularisation", dict.fromkeys((
        "target_variation", "target_share", "largest_variation"))),
    ("defences", "monitor"): ("defences.GradientMonitor", dict.fromkeys((
        "ratio", "consecutive", "flat", "flat_checks", "after"))),
    ("defences", "shear_weights"): ("defences.ShearWeights", dict.fromkeys((
        "minimum", "exponent"))),
    ("global",): ("search.Screening", {"keep": "keep", "least": "least"}),
    ("solver",): ("optimize.Recovery", {"recovery": "attempts"}),
    ("streaming",): ("objective.HostLoop", {"read_ahead": "ahead"}),
    ("data",): ("data.Selection", {"min_lag": "min_lag", "max_lag": "max_lag"}),
}  # fmt: skip


@pytest.mark.parametrize("table", SAME, ids=".".join)
def test_defaults_are_those_of_the_classes(table):
    path, names = SAME[table]
    declared = {path: info for path, info, _ in keys_of(Settings)}
    module, _, cls = path.rpartition(".")
    for name, field in names.items():
        default = getattr(getattr(import_module(f"xpcs_eqx.{module}"), cls), field or name)
        assert declared[(*table, name)].default == default, (table, name)
