"""Results of a fit on disk and on screen; `xpcs_eqx.report.plots` draws them."""

from .folder import check_target as check_target
from .folder import new_results as new_results
from .from_file import FittedBand as FittedBand
from .from_file import fitted_bands as fitted_bands
from .from_file import is_stored as is_stored
from .from_file import shown_maps as shown_maps
from .from_file import stored_maps as stored_maps
from .from_file import write_fitted_data as write_fitted_data
from .joint import folder_names as folder_names
from .joint import joint_report as joint_report
from .joint import write_joint_results as write_joint_results
from .maps import FittedMaps as FittedMaps
from .maps import fitted_maps as fitted_maps
from .maps import has_maps as has_maps
from .provenance import provenance_document as provenance_document
from .rates import RateCurve as RateCurve
from .rates import rate_curves as rate_curves
from .results import covariance_arrays as covariance_arrays
from .results import fitted_arrays as fitted_arrays
from .results import joint_document as joint_document
from .results import parameters_document as parameters_document
from .results import scaling_errors as scaling_errors
from .results import strong_correlations as strong_correlations
from .results import to_json as to_json
from .text import text_report as text_report
from .write import write_results as write_results
