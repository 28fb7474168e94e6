"""Words of the tables [bayes…] and the classes they stand for, both ways."""

import re

from ..bayes import (
    AngleBalanced,
    Beta,
    ConsensusAverage,
    ContiguousShards,
    GaussianProduct,
    GivenSigma,
    HalfNormal,
    ImportanceCorrection,
    LaplaceAnchor,
    LaplaceStart,
    LogNormal,
    MarginalisedScaling,
    MultimodalConsensus,
    NoAnchor,
    Normal,
    PathfinderStart,
    PlainStart,
    RandomShards,
    RobustConsensus,
    SampledScaling,
    SampledSigma,
    StratifiedByAngle,
    TruncatedNormal,
    Uniform,
)
from ..bayes.consensus.anchors import AbstractAnchor
from ..bayes.consensus.combiners import AbstractCombiner, SimpleAverage, WeightedAverage
from ..bayes.consensus.correction import NoCorrection
from ..bayes.consensus.settings import THRESHOLD
from ..bayes.consensus.shards import AbstractSharding
from ..bayes.nuts.starts import AbstractStart
from ..bayes.priors.families import AbstractPrior

# Pairs above which there are shards.
THRESHOLDS = {"auto": THRESHOLD, "single": None, "consensus": 0}
STARTS: dict[str, type[AbstractStart]] = {
    "laplace": LaplaceStart,
    "plain": PlainStart,
    "pathfinder": PathfinderStart,
}
SHARDINGS: dict[str, type[AbstractSharding]] = {
    "angle_balanced": AngleBalanced,
    "random": RandomShards,
    "contiguous": ContiguousShards,
    "stratified": StratifiedByAngle,
}
ANCHORS: dict[str, type[AbstractAnchor]] = {"laplace": LaplaceAnchor, "none": NoAnchor}
COMBINERS: dict[str, type[AbstractCombiner]] = {
    "robust": RobustConsensus,
    "consensus": ConsensusAverage,
    "gaussian_product": GaussianProduct,
    "multimodal": MultimodalConsensus,
    "weighted": WeightedAverage,
    "simple": SimpleAverage,
}
CORRECTIONS = {"none": NoCorrection, "importance": ImportanceCorrection}
PRIORS: dict[type[AbstractPrior], str] = {
    Uniform: "uniform",
    Normal: "normal",
    TruncatedNormal: "truncated_normal",
    LogNormal: "log_normal",
    HalfNormal: "half_normal",
    Beta: "beta",
}
_KEYS = {
    "bayes.start": STARTS,
    "bayes.scaling": {"sampled": SampledScaling, "marginalised": MarginalisedScaling},
    "bayes.sigma": {"sampled": SampledSigma, "given": GivenSigma},
    "bayes.shards.sharding": SHARDINGS,
    "bayes.shards.anchor": ANCHORS,
    "bayes.shards.combiner": COMBINERS,
    "bayes.shards.correction": CORRECTIONS,
}
_WORDS = {
    **{kind.__name__: word for kind, word in PRIORS.items()},
    **{
        kind.__name__: f'{key} = "{word}"'
        for key, words in _KEYS.items()
        for word, kind in words.items()
    },
    "sample": 'bayes.method = "single"',
    "consensus": 'bayes.method = "consensus"',
    "warmup": "bayes.warm_up",
    "max_depth": "bayes.depth",
    "target_acceptance": "bayes.target_acceptance",
}
# Of these only a call is meant: the bare words are English.
_CALLS = ("sample", "consensus")
# A class may stand as an argument, as in `anchor=NoAnchor()`: the key says the same.
_NAMES = re.compile(
    rf"\b(?:\w+=)?(?:({'|'.join(name for name in _WORDS if name not in _CALLS)})\b(?:\(\))?"
    rf"|({'|'.join(_CALLS)})\(\))"
)
# Settings that are arguments of a class, as in `Limits(success=0.5)`.
_SETTINGS = {"Limits": "bayes.shards", "Nuts": "bayes"}
_GIVEN = re.compile(rf"\b(?:\w+=)?({'|'.join(_SETTINGS)})\((\w+)=[^()]*\)")
_PHRASES = {
    "give it equal bounds in the map": "set free = false in its table",
    "(warmup, draws)": "(bayes.warm_up, bayes.draws)",
}


def in_toml(text: str) -> str:
    """A message of the library with the keys of the file in place of classes and arguments.

    >>> in_toml("take larger shards or use RandomShards()")
    'take larger shards or use bayes.shards.sharding = "random"'
    >>> in_toml("sample with anchor=NoAnchor(), or allow it with Limits(success=0.5)")
    'sample with bayes.shards.anchor = "none", or allow it with bayes.shards.success'
    """
    for phrase, words in _PHRASES.items():
        text = text.replace(phrase, words)
    text = _GIVEN.sub(lambda found: _WORDS.get(found[2], f"{_SETTINGS[found[1]]}.{found[2]}"), text)
    # What has its key already stays as it is.
    named = re.compile(r'\bbayes\.[\w.]+(?: = "\w+")?')
    kept = named.findall(text)
    parts = [_NAMES.sub(lambda found: _WORDS[found[1] or found[2]], p) for p in named.split(text)]
    return "".join(part + key for part, key in zip(parts, [*kept, ""], strict=True))
