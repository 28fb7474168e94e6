"""The table of `contract.py` for the choice between one run and shards."""

from contract import Case
from contract_defences import MODULES, RECORDS

from xpcs_eqx import bayes

__all__ = ["MODULES", "RECORDS"]

MODULES |= {
    bayes.InShards: Case(lambda: bayes.InShards(size=bayes.NumberOfShards(3), folder="shards")),
}
