"""Every argument that `diagnose` advises is one that Ultralytics has, with the default that is printed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

import pytest

import maskprism
from maskprism.analysis.dataset.edits import Edits
from maskprism.analysis.truth.error_budget import PARTS
from maskprism.analysis.truth.matching import ErrorType
from maskprism.models.families import FamilyName

ultralytics_cfg = pytest.importorskip("ultralytics.cfg")


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("layout", get_args(FamilyName))
def test_advised_arguments_exist(layout: FamilyName, *, fixed: bool) -> None:
    edits = Edits(replace(maskprism.load("sample").spec, layout=layout, fixed_size=fixed))
    lists = [edits.pieces(), edits.border(), edits.thin(), edits.decode(), edits.larger_input()]
    lists += [edits.part(part) for part in PARTS] + [edits.error(kind) for kind in get_args(ErrorType)]
    text = " ".join(sentence for one in lists for sentence in one)
    known = ultralytics_cfg.DEFAULT_CFG_DICT
    arguments = re.findall(r"(?<![\w-])([a-z_]+)=", text)
    assert set(arguments) <= set(known)
    assert "conf" not in arguments  # the score threshold changes no AP
    for name, default in re.findall(r"\b([a-z_]+)=[\w.]* \(default: ([\d.]+)\)", text):
        assert float(default) == known[name]
