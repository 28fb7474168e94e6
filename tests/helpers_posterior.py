"""A small problem with [bayes] for the tests of the program."""

from helpers_data import two_time

from xpcs_eqx import fit as program
from xpcs_eqx.data import write_own

SETTINGS = """
[data]
path = "data.h5"
[model]
mode = "static"
[scaling]
mode = "averaged"
[parameters.D0]
start = 8e4
[parameters.D_offset]
free = false
"""
POSTERIOR = """
[bayes]
warm_up = 150
draws = 250
predictive = 20
[bayes.priors.alpha]
kind = "normal"
mean = 0.0
sd = 0.5
[bayes.priors.D0]
from_fit = true
width = 5.0
"""
QUICKLY = ("--quiet", "--no-plots", "--set", "output.fitted_data=false")
IN_SHARDS = ("--set", "bayes.method=consensus", "--set", "bayes.shards.count=3")


def prepared(folder, extra=POSTERIOR):
    write_own(str(folder / "data.h5"), two_time(n=24))
    (folder / "fit.toml").write_text(SETTINGS + extra, encoding="utf-8")
    return folder


def run(folder, *arguments):
    return program.main([str(folder / "fit.toml"), *arguments])


def report_of(results):
    return " ".join((results / "fit" / "report.txt").read_text(encoding="utf-8").split())
