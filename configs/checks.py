"""How a configuration says that a value is not allowed."""

from __future__ import annotations

from errors import UserError


class ConfigError(UserError):
    """A configuration key or value that is not allowed."""


def check(holds: bool, key: str, value: object, allowed: str) -> None:
    """Raises ConfigError naming the full key, the value and what is allowed."""
    if not holds:
        raise ConfigError(f"{key} is {value!r}; allowed: {allowed}")


def one_of(key: str, value: str, *allowed: str) -> None:
    """`check` for a word out of a list."""
    check(value in allowed, key, value, ", ".join(allowed))
