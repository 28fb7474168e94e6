"""What is for an objective of one data set says so to any other."""

from ..errors import ModelError
from ..objective import AbstractObjective, CombinedObjective, JointObjective, ProjectedObjective


def check_one_data_set(objective: AbstractObjective, what: str) -> None:
    """Raise `ModelError` for a joint fit of several data sets, a curve or anything else."""
    if isinstance(objective, CombinedObjective):
        raise ModelError(
            f"{what} takes the objective of one data set, and this one combines "
            f"{len(objective.parts)}: fit them together with joint_least_squares, or each by "
            "itself as an element of `objective.parts`"
        )
    if not isinstance(objective, ProjectedObjective | JointObjective):
        raise ModelError(
            f"{what} takes the objective of a two-time data set, from projected_objective, "
            f"joint_objective or two_time_objective, and this is a {type(objective).__name__}: a "
            "curve is fitted with curve_fit (with a global search by search.multi_start or "
            "search.cma_es), any other objective with fitting.solved"
        )
