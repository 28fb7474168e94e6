"""Error bars: classical, speckle sandwich, frame-dyadic sandwich, profile likelihood."""

from .uncertainty import Uncertainty as Uncertainty
