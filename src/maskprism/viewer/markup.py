"""What goes into HTML files that hold everything they show: texts of the package, data as text, and what may run."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any


def static_text(name: str) -> str:
    """Return a script, style or frame of the package."""
    return (files("maskprism.viewer") / "static" / name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """Return the element with this text, as a Content-Security-Policy names it."""
    return f"'sha256-{base64_text(hashlib.sha256(text.encode()).digest())}'"


def script_json(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(value)  # ASCII, so that line separators and lone surrogates are escapes too
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def base64_text(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode("ascii")


def data_url(kind: str, data: bytes) -> str:
    """Bytes of a kind such as "image/png" as an address that holds them."""
    return f"data:{kind};base64,{base64_text(data)}"
