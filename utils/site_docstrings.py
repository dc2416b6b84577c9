"""The Griffe extension that mkdocs.yml names: docstrings become Markdown as `site_pages.markdown_of` has it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from site_pages import markdown_of

try:
    from griffe import Extension, Object
except ImportError:  # outside the environment of the site
    Extension = Object = object


class Docstrings(Extension):
    """Changes docstrings before they are parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = markdown_of(obj.docstring.value)
