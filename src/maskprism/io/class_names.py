"""Names of classes: checked where they come from a file, and told from the placeholders of a model without names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskprism.io.untrusted import ANY_KIND, Failure, plain_text, shortened


def parse_class_names(found: Any, label: str, failure: Failure) -> dict[int, str]:
    """Class names by class id 0, 1, 2, ...: from a list, or from a mapping of ids to names.

    Names are plain values; what is no Unicode in them is written as escapes.
    """
    pairs: Any = (
        found.items() if isinstance(found, Mapping) else enumerate(found) if isinstance(found, list | tuple) else ()
    )
    try:
        listed = [(int(class_id), plain_text(name)) for class_id, name in pairs]
    except ANY_KIND:
        listed = []
    if not listed or sorted(class_id for class_id, _ in listed) != list(range(len(listed))):
        raise failure(
            f"{label}: names is {shortened(found)}; expected a list of class names, or a mapping from 0, 1, 2, ..."
        )
    return dict(sorted(listed))


def placeholder(class_id: int) -> str:
    """The name of a class without a name."""
    return f"class{class_id}"


def are_placeholders(names: Mapping[int, str]) -> bool:
    """Whether these classes are unnamed: there are none, or each is called by its number: "class0", "0"."""
    return all(
        name.casefold() in (f"class{class_id}", f"class_{class_id}", f"class {class_id}", str(class_id))
        for class_id, name in names.items()
    )
