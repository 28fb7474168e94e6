"""Mistakes that are made when the most used functions are called, and what is said of each."""

import pytest
from helpers_data import two_time
from helpers_entries import DATA, KEY, MAP, MODEL, PLACE, T, line

import xpcs_eqx as xe
from xpcs_eqx.data import write_npz

PROBLEM = xe.projected_objective(MAP, DATA)
GRID = {"g2": DATA.c2, "t1": T, "t2": T, "phi": [0.0]}


# What is called, of a file, and what is said.
MISTAKES = {
    "no file": (lambda f: xe.load("no.hdf"), "no.hdf: there is no such file; check the path"),
    "no path": (lambda f: xe.load(3), "path is 3; give the path of a file"),
    "positional": (
        lambda f: xe.load(f, "npz"),
        "load: too many positional arguments; it takes path",
    ),
    "misspelt": (lambda f: xe.load(f, layuot="npz"), "did you mean 'layout'"),
    "layout": (lambda f: xe.load(f, layout="aps"), "layout 'aps' is unknown; known are"),
    "frames": (lambda f: xe.load(f, selection=(1, 5)), "selection is (1, 5); give a Selection"),
    "analysis": (lambda f: xe.load(f, analysis=2), "analysis is 2; give the name of a group"),
    "links": (lambda f: xe.load(f, linked_files="no"), "linked_files is 'no'; give True or False"),
    "lock": (lambda f: xe.load_joint(f, locking=None), "locking is None; give True or False"),
    "sum": (lambda f: xe.load(f, checksum="sha"), "checksum is 'sha'; give True or False"),
    "sigma word": (
        lambda f: xe.load(f, sigma="x"),
        "sigma is 'x'; give a number, 'mad' or nothing",
    ),
    "other q": (lambda f: xe.load(f, q=0.9), "0.9"),
    "no dictionary": (lambda f: xe.from_dict([1, 2]), "give a dictionary of arrays"),
    "missing key": (lambda f: xe.from_dict({**GRID, "Q": 1.0}), "'q' is missing"),
    "other name": (lambda f: xe.from_dict(GRID, sigam=1.0), "did you mean 'sigma'"),
    "model, t": (
        lambda f: xe.simulate(T, MODEL, PLACE, 0.2, noise=0.1, key=KEY),
        "model and t are swapped",
    ),
    "place, t": (
        lambda f: xe.simulate(MODEL, PLACE, T, 0.2, noise=0.1, key=KEY),
        "t and geometry are swapped",
    ),
    "seed": (
        lambda f: xe.simulate(MODEL, T, PLACE, 0.2, noise=1, key=0),
        "give a key of jax.random",
    ),
    "no noise": (
        lambda f: xe.simulate(MODEL, T, PLACE, 0.2, key=KEY),
        "missing a required argument: 'noise'",
    ),
    "t, model": (lambda f: xe.parameter_map(T, MODEL), "model and t are swapped"),
    "one name": (
        lambda f: xe.parameter_map(MODEL, fixed="D0"),
        "fixed is 'D0'; give several in a list",
    ),
    "no name": (
        lambda f: xe.parameter_map(MODEL, fixed=["D"]),
        "no parameter 'D'; did you mean 'D0'?",
    ),
    "list": (lambda f: xe.parameter_map(MODEL, bounds=[1, 2]), "give a dictionary"),
    "number": (lambda f: xe.parameter_map(MODEL, bounds={"D0": 5}), "D0: bounds are a pair"),
    "inside out": (
        lambda f: xe.parameter_map(MODEL, bounds={"D0": (9, 1)}),
        "bounds of D0 are inside out",
    ),
    "outside": (
        lambda f: xe.parameter_map(MODEL, bounds={"D0": (1, 9)}),
        "start value 15000 of D0 lies outside",
    ),
    "keyword": (lambda f: xe.parameter_map(MODEL, fix=["D0"]), "did you mean 'fixed'"),
    "data, map": (lambda f: xe.projected_objective(DATA, MAP), "parameters and data are swapped"),
    "map, data": (lambda f: xe.two_time_objective(DATA, MAP), "parameters and data are swapped"),
    "one in a list": (lambda f: xe.projected_objective(MAP, [DATA]), "data is of type list; give"),
    "word": (
        lambda f: xe.two_time_objective(MAP, DATA, "averaged"),
        "scaling is 'averaged'; give one of Averaged",
    ),
    "angles": (
        lambda f: xe.two_time_objective(MAP, DATA, xe.Individual(3)),
        "the scaling is for 3 angles, the data have 1",
    ),
    "class": (
        lambda f: xe.two_time_objective(MAP, DATA, loss=xe.Huber),
        "the class Huber itself, not one made of it",
    ),
    "bent": (
        lambda f: xe.two_time_objective(MAP, DATA, loss=xe.Huber(), eliminate=True),
        "the loss Huber is no sum of squares",
    ),
    "data alone": (
        lambda f: xe.least_squares(DATA),
        "objective is of type TwoTimeData; give one of",
    ),
    "map alone": (
        lambda f: xe.least_squares(MAP),
        "objective is of type ParameterMap; give one of",
    ),
    "solver": (lambda f: xe.least_squares(PROBLEM, solver="lm"), "give a TrustRegion"),
    "start": (lambda f: xe.least_squares(PROBLEM, {"D0": 1.0}), "start is of type dict"),
    "length": (
        lambda f: xe.least_squares(PROBLEM, [1.0]),
        "the start has shape (1,), the fit (2,)",
    ),
    "setting": (
        lambda f: xe.least_squares(PROBLEM, max_evaluations=9),
        "belongs in solver=TrustRegion(max_evaluations=…)",
    ),
    "model, data": (lambda f: xe.fit_maps(MODEL, DATA), "data and model are swapped"),
    "class, data": (lambda f: xe.fit_maps(xe.Static, DATA), "data and model are swapped"),
    "model's name": (lambda f: xe.fit_maps(DATA, "static"), "model is 'static'; give one of"),
    "no model": (lambda f: xe.fit_maps(DATA), "missing a required argument: 'model'"),
    "fix": (lambda f: xe.fit_maps(DATA, MODEL, fix=["D0"]), "did you mean 'fixed'"),
    "word again": (lambda f: xe.fit_maps(DATA, MODEL, scaling="averaged"), "scaling is 'averaged'"),
    "labels": (
        lambda f: xe.fit_maps({"hot": DATA}, {"cold": MODEL}),
        "model is given for cold, the data sets are hot",
    ),
    "shared": (
        lambda f: xe.fit_maps(DATA, MODEL, shared=["D0"]),
        "shared is for several data sets",
    ),
    "negative": (lambda f: xe.fit_maps(DATA, MODEL, sigma=-1.0), "not above zero"),
    "strategy": (lambda f: xe.global_least_squares(PROBLEM, strategy="auto"), "strategy is 'auto'"),
    "no fit": (lambda f: xe.profile_interval(PROBLEM, "D0"), "fit is of type ProjectedObjective"),
    "nothing to sample": (lambda f: xe.sample(DATA), "problem is of type TwoTimeData; give"),
    "sampler": (lambda f: xe.sample(PROBLEM, sampler="nuts"), "give a Nuts"),
    "draws": (
        lambda f: xe.sample(PROBLEM, draws=100),
        "belongs in sampler=Nuts(draws=…)",
    ),
    "points, curve": (
        lambda f: xe.curve_fit([1, 2], line, [1, 2], [1.0]),
        "function and x are swapped",
    ),
    "no rate": (
        lambda f: xe.fit_maps(DATA, MODEL).rate("D0"),
        "Static has no rate 'D0'; it has transport",
    ),
    "no parameter": (lambda f: xe.with_parameters(MODEL, {"D": 1.0}), "did you mean 'D0'?"),
}


def test_mistakes_are_told_with_what_to_do(tmp_path):
    path = tmp_path / "maps.npz"
    write_npz(path, two_time(n=6))
    assert len(MISTAKES) >= 40
    for name, (call, said) in MISTAKES.items():
        with pytest.raises(xe.XPCSError) as caught:
            call(path)
        assert said in str(caught.value), f"{name}: {caught.value}"
        assert len(str(caught.value)) < 420, name


def test_an_argument_that_is_not_there_is_a_type_error_too():
    with pytest.raises(TypeError, match="least_squares: got an unexpected keyword"):
        xe.least_squares(PROBLEM, max_evaluations=9)
