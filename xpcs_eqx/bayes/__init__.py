"""Posteriors: priors, sampling, large data in shards, and what the draws say.

To sample: `sample`, `consensus`, or `infer`, which chooses; the result is a `Posterior`. What is
not listed here stays importable from the module it lives in, in the folders `priors`, `density`,
`nuts`, `shards` and `workers`.
"""

# From a fit or an objective to a posterior.
from .density.likelihood import GivenSigma as GivenSigma
from .density.likelihood import MarginalisedScaling as MarginalisedScaling
from .density.likelihood import SampledScaling as SampledScaling
from .density.likelihood import SampledSigma as SampledSigma
from .density.log_posterior import LogPosterior as LogPosterior
from .density.log_posterior import log_posterior as log_posterior
from .nuts.chains import ChainsOnDevices as ChainsOnDevices
from .nuts.chains import LockStepChains as LockStepChains
from .nuts.chains import Nuts as Nuts
from .nuts.sample import sample as sample
from .nuts.sample import with_scaling as with_scaling
from .nuts.starts import LaplaceStart as LaplaceStart
from .nuts.starts import PathfinderStart as PathfinderStart
from .nuts.starts import PlainStart as PlainStart
from .posterior import Posterior as Posterior
from .posterior import precision as precision
from .posterior import predictive as predictive
from .priors.families import Beta as Beta
from .priors.families import HalfNormal as HalfNormal
from .priors.families import LogNormal as LogNormal
from .priors.families import Normal as Normal
from .priors.families import TruncatedNormal as TruncatedNormal
from .priors.families import Uniform as Uniform
from .priors.prior_set import PriorSet as PriorSet
from .priors.prior_set import default_priors as default_priors
from .priors.prior_set import fit_priors as fit_priors
from .priors.prior_set import saved_priors as saved_priors
from .shards.anchors import LaplaceAnchor as LaplaceAnchor
from .shards.anchors import NoAnchor as NoAnchor
from .shards.combiners import ConsensusAverage as ConsensusAverage
from .shards.combiners import GaussianProduct as GaussianProduct
from .shards.combiners import MultimodalConsensus as MultimodalConsensus
from .shards.combiners import RobustConsensus as RobustConsensus
from .shards.consensus import Consensus as Consensus
from .shards.consensus import consensus as consensus
from .shards.consensus import infer as infer
from .shards.correction import ImportanceCorrection as ImportanceCorrection
from .shards.division import AngleBalanced as AngleBalanced
from .shards.division import ContiguousShards as ContiguousShards
from .shards.division import NumberOfShards as NumberOfShards
from .shards.division import PairsPerShard as PairsPerShard
from .shards.division import RandomShards as RandomShards
from .shards.division import StratifiedByAngle as StratifiedByAngle
from .workers.base import Limits as Limits
from .workers.executor import DaskWorkers as DaskWorkers
from .workers.executor import ExecutorWorkers as ExecutorWorkers
from .workers.executor import JobSettings as JobSettings
from .workers.processes import SpawnedProcesses as SpawnedProcesses
from .write import read_posterior as read_posterior
from .write import write_posterior as write_posterior
