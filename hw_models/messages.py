"""One-line messages for what a user's file holds and a schema does not allow."""

from typing import Any

_EXPECTED = {
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le}",
    "extra_forbidden": "no field of this name",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "invalid_key": "text as the name of a field",
    "dict_type": "a mapping of names",
    "list_type": "a list",
    "too_short": "at least {min_length} value",
    "literal_error": "{expected}",
    "model_type": "a mapping of fields",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "text that matches {pattern}",
}


def explain(error: Any) -> str:
    """Turns one of pydantic's errors into `field: expected ..., got ...`."""
    path, kind, context = error["loc"], error["type"], error.get("ctx", {})
    where = ".".join(str(part) for part in path if part != "[key]")
    if kind == "missing":
        return f"{where}: expected a value, got nothing"
    expected = _EXPECTED.get(kind)
    wanted = expected.format(**context) if expected else error["msg"]
    return (f"{where}: " if where else "") + f"expected {wanted}, got {show(context.get('got', error['input']))}"


def show(value: object, limit: int = 60) -> str:
    """Shows a value in a message, cut to a bearable length."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
