"""Images with ground truth: Ultralytics data sets (`data.yaml`) and COCO json, read one image at a time.

Examples
--------
>>> from maskprism.datasets.scenes import write_dataset
>>> dataset = open_dataset(write_dataset("scenes", 5), split="val")
>>> for sample in dataset:
...     image, truth = sample.read()
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from maskprism._common.lazy import lazy_submodules
from maskprism.datasets.coco import Crowds, open_coco
from maskprism.datasets.ground_truth import GroundTruth
from maskprism.datasets.samples import LOCAL_ONLY, Dataset, Sample
from maskprism.datasets.yolo import open_yaml
from maskprism.errors import InputError
from maskprism.io.untrusted import is_file, is_folder, shortened
from maskprism.io.uris import is_uri, shown

__all__ = ["Dataset", "GroundTruth", "Sample", "open_dataset"]

if not TYPE_CHECKING:  # type checkers shall know the names that are here
    __getattr__, __dir__ = lazy_submodules(__name__)


def open_dataset(
    path: str | os.PathLike[str],
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    *,
    crowds: Crowds = "left-out",
    further: Sequence[Path] = (),
) -> Dataset:
    """The data set that a `data.yaml` of Ultralytics or a COCO json describes, or the only such file of a folder.

    Parameters
    ----------
    path
        The description, or its folder.
    split
        "train", "val" or "test" of a data.yaml, or "all" of them. Default: the first of val, test, train that it has.
    images
        The folder that file names of a COCO json are relative to. Default: the json's own folder or the usual places
        beside it.
    crowds
        Masks that a COCO json marks as crowds (`iscrowd: 1`) are left out of every count, as COCO does, or taken for
        single instances: "as-instances". CVAT marks every brush mask as a crowd.
    further
        More folders where the images may lie.

    Returns
    -------
    Dataset
        Images that are listed and not there are left out; `Dataset.notices` counts them.

    Raises
    ------
    InputError
        For a description that cannot be read or leads to no images or labels.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import write_dataset
    >>> dataset = maskprism.open_dataset(write_dataset("scenes", 4, validation_share=1), "val")
    >>> image, truth = next(iter(dataset)).read()
    >>> image.shape, truth.masks().shape[1:]
    ((320, 320, 3), (320, 320))
    """
    if is_uri(path) or is_uri(images):
        raise InputError(f"{shown(path if is_uri(path) else images)}: {LOCAL_ONLY}")
    file = Path(path)
    if is_folder(file):
        found = sorted(one for one in file.iterdir() if one.suffix.lower() in (".yaml", ".yml", ".json"))
        if len(found) != 1:
            raise InputError(
                f"{file}: the folder holds {len(found)} .yaml and .json files; name the one that describes the data set"
            )
        file = found[0]
    if not is_file(file):
        raise InputError(
            f"{shortened(file)}: there is no such file; expected a data.yaml of Ultralytics or a COCO json"
        )
    if crowds not in get_args(Crowds):
        raise InputError(f"crowds is {crowds!r}; expected one of {', '.join(map(repr, get_args(Crowds)))}")
    if file.suffix.lower() == ".json":
        if split is not None:
            raise InputError(f"{file}: a COCO json is one split by itself; leave split {split!r} out")
        return open_coco(file, None if images is None else Path(images), crowds=crowds, further=further)
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"{file}: expected a data.yaml of Ultralytics or a COCO json, not {file.suffix or 'this'}")
    if images is not None:
        raise InputError(f"{file}: a data.yaml says itself where its images are; leave images out")
    return open_yaml(file, split, further)
