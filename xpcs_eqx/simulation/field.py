"""The field of a model, which `physics` states: it is what speckle patterns are simulated from."""

from ..physics import field_correlation as field_correlation
from ..physics import field_factor as field_factor
