"""TOML to objects: the only place where a string chooses a class.

Reading and checking needs no JAX; `xpcs_eqx.config.build` makes the objects.
"""

from .read import Configuration as Configuration
from .read import check_settings as check_settings
from .read import read_configuration as read_configuration
from .source import Source as Source
from .tables import Settings as Settings
from .template import TEMPLATES as TEMPLATES
from .template import template as template
