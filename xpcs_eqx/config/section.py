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


def toml_value(value: Any) -> str:
    """A number, string, truth value, list or inline table in TOML."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k} = {toml_value(v)}' for k, v in value.items())}}}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(v) for v in value)}]"
    return repr(value)
