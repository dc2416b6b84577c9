"""Names of classes: checked where they come from a file, and told from the placeholders of a model without names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, SupportsIndex

from maskprism.errors import InputError
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
    """Return the name of a class without a name."""
    return f"class{class_id}"


def are_placeholders(names: Mapping[int, str]) -> bool:
    """Return whether these classes are unnamed: there are none, or each is called by its number: "class0", "0"."""
    return all(
        name.casefold() in (f"class{class_id}", f"class_{class_id}", f"class {class_id}", str(class_id))
        for class_id, name in names.items()
    )


def class_ids(classes: Iterable[int | str], names: Mapping[int, str]) -> tuple[int, ...]:
    """Resolve classes that a user names.

    Parameters
    ----------
    classes
        Class ids and class names, in any mixture. A name stands for every class that has it.
    names
        Of the model, by class id; empty where it does not tell its classes. Ids are not checked then.

    Returns
    -------
    tuple of int
        Class ids.

    Raises
    ------
    InputError
        If the model has no such class, with names that are close to what was given.
    """
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise _no_collection(classes)
    ids: list[int] = []
    for given in classes:
        if isinstance(given, str):
            ids += _ids_of_name(given, names)
        elif isinstance(given, SupportsIndex):
            ids.append(given.__index__())
        else:
            raise _no_collection(classes)
    unknown = [class_id for class_id in ids if names and class_id not in names]
    if unknown:
        raise InputError(f"classes {unknown} are not in the model; it has {len(names)} classes (0..{max(names)})")
    return tuple(ids)


def _ids_of_name(given: str, names: Mapping[int, str]) -> list[int]:
    ids = [class_id for class_id, name in names.items() if name == given]
    if ids:
        return ids
    if not names:
        raise InputError(f"class {given!r}: the model does not tell its classes; name them with names= (--names)")
    folded = {name.casefold(): name for name in names.values()}
    close = [folded[match] for match in get_close_matches(given.casefold(), folded, cutoff=0.5)]
    listed = ", ".join(list(names.values())[:10]) + (", ..." if len(names) > 10 else "")
    advice = f"did you mean {' or '.join(map(repr, close))}?" if close else f"expected one of {listed}"
    raise InputError(f"there is no class {given!r} among the {len(names)} of the model; {advice}")


def _no_collection(classes: object) -> InputError:
    return InputError(f'classes is {classes!r}; expected a list of class ids or names, such as [0, "person"]')
