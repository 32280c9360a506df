"""The error family: one base class, and messages that name the cure."""

from __future__ import annotations


class MassaccessError(Exception):
    """Base of every error that massaccess raises on purpose."""


class ConfigError(MassaccessError, ValueError):
    """An option is out of range, contradicts another, or its name is unknown."""


class ShapeError(MassaccessError, ValueError):
    """Two arrays do not fit together, or an array has the wrong rank or dtype."""


class NotFiniteError(MassaccessError, ValueError):
    """An input holds NaN or infinity."""


class UnknownNameError(MassaccessError, KeyError):
    """A receiver, channel, modulation or field that nothing answers to."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the quotes of a repr


class FormatError(MassaccessError, ValueError):
    """A file or a message is truncated, foreign, or of an unknown version."""


class MassaccessWarning(UserWarning):
    """Something works, but not as well as it could; the message says what would help."""


def unknown(what: str, name: object, known: object) -> UnknownNameError:
    """The error for a name that is in no list; it shows the list.

    >>> print(unknown("modulation", "8psk", ["qpsk", "16qam"]))
    unknown modulation '8psk': choose one of 16qam, qpsk
    """
    names = ", ".join(sorted(str(item) for item in known))  # type: ignore[attr-defined]
    return UnknownNameError(f"unknown {what} {name!r}: choose one of {names}")
