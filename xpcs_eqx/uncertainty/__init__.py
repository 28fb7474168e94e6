"""Error bars: classical, speckle sandwich, frame-dyadic sandwich, profile likelihood."""

from .covariance import Optimum as Optimum
from .covariance import ScoreCovariances as ScoreCovariances
from .covariance import loss_of as loss_of
from .covariance import lower_uncertainty as lower_uncertainty
from .covariance import optimum as optimum
from .covariance import sandwiches as sandwiches
from .covariance import score_covariances as score_covariances
from .covariance import uncertainty_from as uncertainty_from
from .curves import curve_errors as curve_errors
from .dyadic import dyadic_scores as dyadic_scores
from .misfit import Deviation as Deviation
from .misfit import Misfit as Misfit
from .misfit import MisfitTest as MisfitTest
from .misfit import misfit_of as misfit_of
from .scores import speckle_scores as speckle_scores
from .signal import Signal as Signal
from .signal import signal_of as signal_of
from .uncertainty import Uncertainty as Uncertainty
from .uncertainty import carried as carried
from .uncertainty import chance as chance
from .uncertainty import inverse_of as inverse_of
from .uncertainty import reduced_chi2 as reduced_chi2
from .uncertainty import residual_variance as residual_variance
from .uncertainty import wald as wald
