"""Values and errors of parameters from the results of an earlier run."""

import json
import math
from typing import Any, NamedTuple

from ..errors import DataError


class SavedValue(NamedTuple):
    """A parameter in a `parameters.json`: of a fit its value and quoted error, of a posterior mean
    and standard deviation. The error is NaN where there is none; bounds may be infinite.

    `role` is free, shared, separate, fixed, tied, scaling, or sampled.
    """

    value: float
    error: float
    lower: float
    upper: float
    role: str


def _number(value: Any, missing: float) -> float:
    # Numbers that are not finite are null in these files.
    return missing if value is None else float(value)


def saved_values(path: str) -> dict[str, SavedValue]:
    """All parameters by name from the `parameters.json` of a fit or of a posterior.

    To begin another fit there: `with_parameters(model, {name: one.value for name, one in
    saved_values(path).items() if …})`.

    **Raises:** `DataError` for what is no such file.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            rows = json.load(stream)["parameters"]
        found = {}
        for name, row in rows.items():
            low, high = row.get("bounds", (None, None))
            found[name] = SavedValue(
                _number(row["value"] if "value" in row else row["mean"], math.nan),
                _number(row["error"] if "value" in row else row["sd"], math.nan),
                _number(low, -math.inf),
                _number(high, math.inf),
                row.get("role", "sampled"),
            )
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not the parameters.json of a fit or a posterior ({error!r})"
        ) from error
    return found
