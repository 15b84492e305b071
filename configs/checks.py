"""Checks of configuration values, and the error that they raise."""

from __future__ import annotations

from errors import UserError


class ConfigError(UserError):
    """A configuration key or value that is not allowed."""


def check(holds: bool, key: str, value: object, allowed: str) -> None:
    """Raises ConfigError naming the full key, the value and what is allowed."""
    if not holds:
        raise ConfigError(f"{key} is {value!r}; allowed: {allowed}")


def check_range(key: str, value: float, least: float, most: float) -> None:
    """`check` for a number from `least` to `most`. The limits are far above what is useful: they
    stop a typing error before it fills the memory."""
    check(least <= value <= most, key, value, f"{least} to {most}")


def one_of(key: str, value: str, *allowed: str) -> None:
    """`check` for one of a list of words."""
    check(value in allowed, key, value, ", ".join(allowed))
