"""What is for an objective of one data set says so to any other."""

from ..errors import ModelError
from ..objective import AbstractObjective, CombinedObjective


def check_one_data_set(objective: AbstractObjective, what: str) -> None:
    """Raise `ModelError` for a joint fit of several data sets."""
    if isinstance(objective, CombinedObjective):
        raise ModelError(
            f"{what} takes the objective of one data set, and this one combines "
            f"{len(objective.parts)}: fit them together with joint_least_squares, or each by "
            "itself as an element of `objective.parts`"
        )
