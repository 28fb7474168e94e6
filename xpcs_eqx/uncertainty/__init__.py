"""Error bars: classical, speckle sandwich, frame-dyadic sandwich, profile likelihood."""

from .covariance import loss_of as loss_of
from .covariance import optimum_equations as optimum_equations
from .covariance import uncertainty_at as uncertainty_at
from .scores import dyadic_scores as dyadic_scores
from .scores import speckle_scores as speckle_scores
from .uncertainty import Uncertainty as Uncertainty
