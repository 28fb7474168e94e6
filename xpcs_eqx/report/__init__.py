"""Results of a fit on disk and on screen; `xpcs_eqx.report.plots` draws them."""

from ..files import to_json as to_json
from .fit import Origin as Origin
from .fit import covariance_arrays as covariance_arrays
from .fit import fit_sections as fit_sections
from .fit import folder_names as folder_names
from .fit import parameters_document as parameters_document
from .fit import scaling_errors as scaling_errors
from .fit import strong_correlations as strong_correlations
from .fit import surface_section as surface_section
from .fit import text_report as text_report
from .fit import time_section as time_section
from .folder import check_target as check_target
from .folder import new_results as new_results
from .folder import provenance_document as provenance_document
from .folder import write_results as write_results
from .maps import FittedBand as FittedBand
from .maps import FittedMaps as FittedMaps
from .maps import fitted_bands as fitted_bands
from .maps import fitted_maps as fitted_maps
from .maps import has_maps as has_maps
from .maps import is_stored as is_stored
from .maps import shown_maps as shown_maps
from .maps import write_fitted_data as write_fitted_data
from .sections import Drawing as Drawing
from .sections import Section as Section
