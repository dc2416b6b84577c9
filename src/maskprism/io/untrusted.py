"""Foreign files: JSON, YAML and literals, checked against a schema before anything is believed.

What a kind of file may hold is a `msgspec.Struct` beside the code that uses it; how files are read, and how what does
not fit becomes one of our errors, is written here only.
"""

from __future__ import annotations

import ast
import codecs
import json
import os
import reprlib
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from maskprism._common.text import readable
from maskprism.errors import MaskprismError
from maskprism.io.uris import Location, UriPath

T = TypeVar("T")
Failure = type[MaskprismError]
MAX_YAML_BYTES = 1 << 20
"""YAML files are descriptions; reading one of this size takes seconds."""
ANY_KIND = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError)
"""What parsers raise for malformed text: PyYAML alone raises seven of these."""
DAMAGED_ZIP = (*ANY_KIND, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged `.npz` raises."""


def read_regular(file: Location, failure: Failure, *, limit: int | None = None) -> bytes:
    """Return the bytes of a regular file.

    `failure` for others, one that cannot be read or holds more than `limit` bytes.
    """
    size = size_of_regular(file, failure)
    if limit is not None and size > limit:
        raise failure(f"{file}: has {size / 2**20:.1f} MB; expected at most {limit / 2**20:.0f} MB of such a file")
    try:
        return file.read_bytes()
    except OSError as error:
        raise failure(f"{file}: cannot be read ({error.strerror or error})") from None


def decoded_text(data: bytes) -> str:
    """Text in UTF-8, or in UTF-16 with the byte order mark that Windows puts in front.

    Raises
    ------
    UnicodeDecodeError
    """
    return data.decode("utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")


def size_of_regular(file: str | os.PathLike[str] | UriPath, failure: Failure) -> int:
    """Return how many bytes a regular file has.

    `failure` for anything else: reading a pipe or a device may never end.
    """
    try:
        found = file.stat() if isinstance(file, UriPath) else os.stat(file)  # noqa: PTH116
    except FileNotFoundError:
        raise failure(f"{file}: there is no such file") from None
    except (OSError, ValueError) as error:  # a ValueError for a path that cannot be one
        told = getattr(error, "strerror", None) or error
        raise failure(
            f"{shortened(file if isinstance(file, UriPath) else Path(file))}: cannot be read ({told})"
        ) from None
    if not stat.S_ISREG(found.st_mode):
        raise failure(f"{file}: cannot be read; it is not a regular file, but {_kind_of(found.st_mode)}")
    return found.st_size


def is_file(path: str | os.PathLike[str] | UriPath) -> bool:
    """Return whether there is such a regular file.

    False, too, for a path that cannot be one (too long, a NUL in it).
    """
    return path.is_file() if isinstance(path, UriPath) else os.path.isfile(path)  # noqa: PTH113  (Path.is_file raises for those)


def is_folder(path: str | os.PathLike[str] | UriPath) -> bool:
    """Return whether there is such a folder; False, too, for a path that cannot be one."""
    return path.is_dir() if isinstance(path, UriPath) else os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises for those)


def decode_json(
    data: bytes | msgspec.Raw, schema: type[T], label: str, failure: Failure, expected: str, *, strict: bool = False
) -> T:
    """Return the value of JSON bytes as `schema`; `failure` says where it does not fit, and what was `expected`.

    Unless `strict`, numbers and flags may come as text ("32", "true"), and whole numbers as 32.0.
    """
    try:
        return msgspec.json.decode(data, type=schema, strict=strict)
    except msgspec.ValidationError as error:
        raise _unfit(label, error, failure, expected) from None
    except ANY_KIND:
        pass  # Python writes NaN and byte order marks, which are no JSON; its own reader takes them
    try:
        text = decoded_text(bytes(data))
        return msgspec.json.decode(msgspec.json.encode(json.loads(text)), type=schema, strict=strict)
    except msgspec.ValidationError as error:
        raise _unfit(label, error, failure, expected) from None
    except ANY_KIND as error:
        raise failure(f"{label}: cannot be read as JSON ({_said(error)}); expected {expected}") from None


def read_yaml(file: Path, schema: type[T], failure: Failure, expected: str) -> T:
    """Return the value of a YAML file as `schema`; `failure` says what is wrong, and what was `expected`."""
    import yaml

    data = read_regular(file, failure, limit=MAX_YAML_BYTES)
    try:
        found = yaml.safe_load(decoded_text(data))
    except (yaml.YAMLError, *ANY_KIND) as error:
        raise failure(f"{file}: cannot be read as YAML ({_said(error)}); expected {expected}") from None
    return fitted(found, schema, str(file), failure, expected)


def fitted(value: Any, schema: type[T], label: str, failure: Failure, expected: str, *, strict: bool = False) -> T:
    """Return a parsed value as `schema`; see `decode_json`."""
    try:
        return msgspec.convert(value, schema, strict=strict)
    except ANY_KIND as error:
        raise _unfit(label, error, failure, expected) from None


def literal(text: str) -> Any:
    """Return the value of a Python or JSON literal, which is never evaluated.

    Raises
    ------
    ValueError
        For anything else.
    """
    for parse in (ast.literal_eval, json.loads):
        try:
            return parse(text)
        except (SyntaxError, *ANY_KIND):
            continue
    raise ValueError(f"{shortened(text)} is not a literal")


def shortened(value: object) -> str:
    """Any value for a message, in 120 characters at most; YAML can hold more than fits into memory."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = 100
    text = str(value) if isinstance(value, os.PathLike | UriPath) else brief.repr(value)
    text = readable(str(text))
    return text if len(text) <= 120 else f"{text[:58]} ... {text[-57:]}"


def plain_text(value: Any) -> str:
    """Return a plain value as text that is Unicode.

    Raises
    ------
    TypeError
        For a collection.
    """
    if isinstance(value, Mapping | list | tuple | set | bytes):
        raise TypeError("no plain value")
    return readable(str(value))


def _kind_of(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _unfit(label: str, error: BaseException, failure: Failure, expected: str) -> MaskprismError:
    return failure(f"{label}: is not as it should be ({_said(error)}); expected {expected}")


def _said(error: BaseException) -> str:
    """Return what a parser or validator says, on one line; for one that only names its type, the type."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    said = " ".join(
        str(error)
        .replace("`", "")
        .replace(" | null", "")
        .replace(" - at $.", " at ")
        .replace(" - at $", " at ")
        .split()
    )
    said = said[:1].lower() + said[1:] if isinstance(error, msgspec.MsgspecError) else said
    said = said if len(said) <= 200 else f"{said[:196]} ..."
    return said if isinstance(error, msgspec.MsgspecError) or " " in said else f"{type(error).__name__} {said}".strip()
