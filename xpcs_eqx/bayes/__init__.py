"""Bayesian inference: priors, log posterior, NUTS, consensus of shards, draws and what they say.

To sample: `sample`, `consensus`, or `infer`, which chooses; the result is a `Posterior`. What is
not listed here stays importable from the module it lives in, in the folders `priors`, `density`,
`nuts`, `consensus` and `workers`.
"""

# From a fit or an objective to a posterior.
from .consensus.anchors import LaplaceAnchor as LaplaceAnchor
from .consensus.anchors import NoAnchor as NoAnchor
from .consensus.combiners import ConsensusAverage as ConsensusAverage
from .consensus.combiners import GaussianProduct as GaussianProduct
from .consensus.combiners import MultimodalConsensus as MultimodalConsensus
from .consensus.combiners import RobustConsensus as RobustConsensus
from .consensus.correction import ImportanceCorrection as ImportanceCorrection
from .consensus.run import consensus as consensus
from .consensus.settings import Consensus as Consensus
from .consensus.shards import AngleBalanced as AngleBalanced
from .consensus.shards import ContiguousShards as ContiguousShards
from .consensus.shards import NumberOfShards as NumberOfShards
from .consensus.shards import PairsPerShard as PairsPerShard
from .consensus.shards import RandomShards as RandomShards
from .consensus.shards import StratifiedByAngle as StratifiedByAngle
from .density.likelihood import GivenSigma as GivenSigma
from .density.likelihood import MarginalisedScaling as MarginalisedScaling
from .density.likelihood import SampledScaling as SampledScaling
from .density.likelihood import SampledSigma as SampledSigma
from .density.log_posterior import LogPosterior as LogPosterior
from .density.log_posterior import log_posterior as log_posterior
from .infer import infer as infer
from .infer import with_scaling as with_scaling
from .nuts.chains import ChainsOnDevices as ChainsOnDevices
from .nuts.chains import LockStepChains as LockStepChains
from .nuts.sample import Nuts as Nuts
from .nuts.sample import sample as sample
from .nuts.starts import LaplaceStart as LaplaceStart
from .nuts.starts import PathfinderStart as PathfinderStart
from .nuts.starts import PlainStart as PlainStart
from .posterior import Posterior as Posterior
from .posterior import precision as precision
from .predictive import predictive as predictive
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
from .workers.base import Limits as Limits
from .workers.executor import DaskWorkers as DaskWorkers
from .workers.executor import ExecutorWorkers as ExecutorWorkers
from .workers.executor import JobSettings as JobSettings
from .workers.processes import SpawnedProcesses as SpawnedProcesses
from .write import read_posterior as read_posterior
from .write import write_posterior as write_posterior
