"""Errors a user can act on: what was wrong, what was expected, what came, and what to do."""

from __future__ import annotations


class MaskprismError(Exception):
    """Base of every error that the command line turns into one line and a non-zero exit code."""


class InputError(MaskprismError, ValueError):
    """An argument is out of range, of the wrong shape or of the wrong kind."""


class ImageError(MaskprismError):
    """An image or video cannot be read."""


class LabelError(MaskprismError):
    """The ground truth of an image cannot be read."""


class ModelError(MaskprismError):
    """A model file cannot be read, or what it computes is not a prototype-based mask."""


class ModelWarning(UserWarning):
    """What a user should know of a model that can be used all the same; commands print it as a note."""


class TableError(MaskprismError):
    """A coefficient table cannot be read, written, or continued."""


class MissingExtraError(MaskprismError, ImportError):
    """An optional dependency is needed and not installed."""

    @classmethod
    def of(cls, what: str, *, package: str, extra: str) -> MissingExtraError:
        """Return the message that names the install command: of an extra, or without one of the package itself."""
        install = f"'maskprism[{extra}]'" if extra else package
        return cls(
            f"{what} needs the package {package}, which is not installed; install it with: pip install {install}"
        )
