"""What all sentences share."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number of things in words."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def brief(name: str, most: int = 28) -> str:
    """A name of at most so many characters; both ends of longer ones stay."""
    kept = (most - 1) // 2
    return name if len(name) <= most else f"{name[:kept]}…{name[-kept:]}"
