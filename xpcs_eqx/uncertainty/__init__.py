"""Error bars: classical, speckle sandwich, frame-dyadic sandwich, profile likelihood."""

from .covariance import Optimum as Optimum
from .covariance import ScoreCovariances as ScoreCovariances
from .covariance import inverse_of as inverse_of
from .covariance import loss_of as loss_of
from .covariance import lower_uncertainty as lower_uncertainty
from .covariance import optimum as optimum
from .covariance import sandwiches as sandwiches
from .covariance import score_covariances as score_covariances
from .covariance import uncertainty_at as uncertainty_at
from .covariance import uncertainty_from as uncertainty_from
from .covariance import variance_of_residual as variance_of_residual
from .curves import CurveErrors as CurveErrors
from .curves import curve_errors as curve_errors
from .curves import variance_of_fit as variance_of_fit
from .dyadic import dyadic_scores as dyadic_scores
from .scores import speckle_scores as speckle_scores
from .scores import stored_speckle_scores as stored_speckle_scores
from .uncertainty import Uncertainty as Uncertainty
from .uncertainty import reduced_chi2 as reduced_chi2
from .uncertainty import residual_variance as residual_variance
from .uncertainty import scaled_inverse as scaled_inverse
from .uncertainty import without_degrees as without_degrees
