"""What tables and keys of a configuration are made of."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def key(default: Any, expected: str, meaning: str, **constraints: Any) -> Any:
    """A key: its default, what a value must be, and what it means (with the unit)."""
    extra: dict[str, Any] = {"expected": expected}
    return Field(default, description=meaning, json_schema_extra=extra, **constraints)


class Section(BaseModel):
    """A table of the file: unknown keys and silent conversions are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
