"""What all sentences share."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of control and format characters, surrogates, line and paragraph separators."""


def counted(number: int, noun: str) -> str:
    """Return a number and its noun: "1 image", "2 images"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def in_brief(items: Sequence[object], most: int = 32) -> str:
    """Return the first of many things, one after the other, and how many more there are."""
    shown = " ".join(map(str, items[:most]))
    return shown if len(items) <= most else f"{shown} … and {len(items) - most} more"


def one_line(error: BaseException) -> str:
    """Return what an error says, on one line; its type, where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def brief(name: str, most: int = 28) -> str:
    """Shorten a name to at most `most` characters; both ends stay."""
    kept = (most - 1) // 2
    return name if len(name) <= most else f"{name[:kept]}…{name[-kept:]}"


def printable(text: str, keep: str = "\n\t") -> str:
    """Escape control and format characters, so that foreign text cannot move the cursor or turns other text around.

    Parameters
    ----------
    text
        Any text.
    keep
        Control characters that stay; default: line ends and tabs.

    Returns
    -------
    str
        The text with ``\\u202e`` and the like in place of such characters, of other line and paragraph separators,
        and of odd bytes of file names. Inside a string of JSON the escapes mean the same characters.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c) not in _UNPRINTABLE else _escaped(c) for c in text)


def single_line(text: str) -> str:
    """Escape control and format characters, line ends included: foreign names begin no line of their own."""
    return printable(text, keep="")


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{int.from_bytes(units[at : at + 2]):04x}" for at in range(0, len(units), 2))


def readable(text: str) -> str:
    """Text that is Unicode: odd bytes of file names as escapes."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def json_text(value: Any) -> str:
    """Indented JSON: null for numbers that are not finite, text for paths, plain numbers and lists for NumPy's."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2).decode()


def _plain(value: Any) -> Any:
    from pathlib import PurePath

    return readable(str(value)) if isinstance(value, PurePath) else value.tolist()


def rounded(value: float, digits: int = 3) -> str:
    """Return a number with `digits` digits, and with more where it would seem to be a whole share (1 or 100 %).

    An IoU of .9996 is "0.9996" and not "1.000"; what is within 5e-7 of 1 is 1 up to rounding.
    """
    if not math.isfinite(value):
        return "–"
    whole = round(value)
    if abs(whole) in (1, 100) and abs(value - whole) >= 5e-7:
        while digits < 6 and float(f"{value:.{digits}f}") == whole:
            digits += 1
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float) -> str:
    """Four digits with a sign; a dash for nan."""
    return "–" if math.isnan(value) else f"{value:+.4f}".replace("-", "−")


def percent(share: float) -> str:
    """Return a share as percent with two digits that mean something; the minus is a true minus, no number a dash."""
    if not math.isfinite(share):
        return "–"
    size = abs(share) * 100
    digits = 0 if size >= 10 or size == 0 else 1 if size >= 1 else 2
    if 0 < size < 0.005:
        return "less than 0.01 %" if share > 0 else "−0 %"
    return f"{share * 100:.{digits}f} %".replace("-", "−")


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message that says something, for ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from ", "Check '"))] or lines
    return telling[0][:300] if telling else type(error).__name__
