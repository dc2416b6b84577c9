"""Which family a model is of: asked once, of what it gives for a plain canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskprism.errors import InputError, ModelError
from maskprism.models.families import known_families
from maskprism.models.metadata import refuse_other_tasks

if TYPE_CHECKING:
    from maskprism.models.families import FamilyName
    from maskprism.models.families.family import Family, Layout, Probe


def family_named(name: FamilyName) -> Family:
    """Look up a family.

    Raises
    ------
    InputError
        With a message that lists them.
    """
    families = known_families()
    if name not in families:
        raise InputError(f"there is no layout {name!r}; expected one of {', '.join(families)}")
    return families[name]


def find_layout(probe: Probe, forced: FamilyName | None = None) -> tuple[Layout, Probe]:
    """Find out how the outputs of a model are read.

    Parameters
    ----------
    probe
        What the model gives for a plain canvas.
    forced
        The family that the user says it is.

    Returns
    -------
    tuple
        The layout, and the probe that it reads: another one where the model had to be changed to show what its masks
        are made of.

    Raises
    ------
    ModelError
        If the outputs hold no prototypes, with the reason for heads that are known, or can be read in several ways and
        nothing decides.
    InputError
        If there is no family `forced`.
    """
    families = list(known_families().values()) if forced is None else [family_named(forced)]
    refuse_other_tasks(probe.metadata.task, probe.label)
    for detect in dict.fromkeys(family.detect for family in reversed(families)):
        if (found := detect(probe, forced)) is not None:
            return found
    expected = "; ".join(family.outputs for family in families)
    raise ModelError(
        f"{probe.label}: outputs of shape {probe.described} are not those of layout {forced!r}; expected {expected}"
    )
