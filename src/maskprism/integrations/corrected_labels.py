"""A corrected copy of a data set: decisions about labels written as the labels of the original are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import yaml
from msgspec import Raw

from maskprism._common.files import reporting_write_errors, write_atomically
from maskprism.datasets import open_dataset
from maskprism.datasets.bitmap_outlines import border_rings, pixel_rings
from maskprism.datasets.coco import CocoAnnotations, Id, bitmap_of, id_key
from maskprism.datasets.lookup import parts_of
from maskprism.datasets.yolo import SPLITS, label_path, read_description
from maskprism.errors import InputError
from maskprism.integrations.rings import joined_rings
from maskprism.integrations.yolo_txt import coordinate_text
from maskprism.io.untrusted import decode_json, decoded_text, is_file, read_regular, shortened

if TYPE_CHECKING:
    from jaxtyping import Bool

    from maskprism.datasets import Dataset, GroundTruth, Sample
    from maskprism.datasets.decisions import LabelDecision, LabelDecisions

RECORD = Path("corrections") / "decisions.json"
"""The decisions, in the corrected data set."""
_BOX_TOLERANCE_PX = 1.0


class ImageDecisions(NamedTuple):
    """The decisions about one image that change something, checked: its labels by id, and new labels."""

    image_hw: tuple[int, int]
    labels: Mapping[int | str, LabelDecision]
    added: Sequence[LabelDecision]

    def bitmap(self, decision: LabelDecision) -> Bool[np.ndarray, "H W"]:
        """Return the mask of a decision."""
        assert decision.mask is not None
        return bitmap_of(decision.mask, self.image_hw)


class CorrectedDataset(NamedTuple):
    """What was written.

    Attributes
    ----------
    description
        The data.yaml or COCO json, to open.
    record
        The decisions.
    counts
        Decisions by action.
    notices
        What a reader must know.
    """

    description: Path
    record: Path
    counts: Mapping[str, int]
    notices: Sequence[str]


def write_corrected(dataset: Dataset, decisions: LabelDecisions, folder: Path) -> CorrectedDataset:
    """Write a copy of a data set with corrected labels; the originals stay unchanged.

    Images become links to the originals, or copies where there can be no links. All other labels are copied unchanged.

    Parameters
    ----------
    dataset
        The data set that was judged, with its own classes.
    decisions
        What to do with which label.
    folder
        The new folder: for label files with `data.yaml`, `images/SPLIT` and `labels/SPLIT` of all splits; for a COCO
        json with a file of the same name, and `images`.

    Returns
    -------
    CorrectedDataset
        What was written.

    Raises
    ------
    InputError
        If a decision is about a label that is not there, or no longer what it was, or if the folder holds the original.
    MaskprismError
        If a file cannot be written.
    """
    keep_originals(dataset, folder)
    by_image: dict[str, list[LabelDecision]] = {}
    for decision in decisions.decisions:
        by_image.setdefault(decision.image, []).append(decision)
    checked: dict[Path, ImageDecisions] = {}
    for sample in dataset:
        if (own := by_image.pop(sample.name, None)) is not None:
            assert isinstance(sample.image.image, Path)
            checked[sample.image.image] = _checked(sample, own)
    if by_image:
        raise InputError(
            f"{dataset.path}: has no image {shortened(next(iter(by_image)))}, which a decision is about; expected the "
            f"data set that was judged, {shortened(decisions.data)}"
            + (f" with split {shortened(decisions.split)}" if decisions.split else "")
        )
    write = _write_coco if isinstance(dataset.annotations, CocoAnnotations) else _write_yolo
    description, notices = write(dataset, checked, folder)
    record = write_atomically(folder / RECORD, msgspec.json.format(msgspec.json.encode(decisions), indent=1))
    counts: dict[str, int] = {}
    for decision in decisions.decisions:
        counts[decision.action] = counts.get(decision.action, 0) + 1
    return CorrectedDataset(description, record, counts, notices)


def keep_originals(dataset: Dataset, folder: Path) -> None:
    """Refuse a folder that holds a file of the original.

    Raises
    ------
    InputError
        If it does.
    """
    inside = folder.resolve()
    for path in (dataset.path, *dataset.images.files):
        if path.resolve().is_relative_to(inside):
            raise InputError(f"{folder}: holds {path} of the original data set; choose another --write")


def _checked(sample: Sample, decisions: Sequence[LabelDecision]) -> ImageDecisions:
    pixels, truth = sample.read()
    found = ImageDecisions((pixels.shape[0], pixels.shape[1]), {}, [])
    labels: dict[int | str, LabelDecision] = {}
    added: list[LabelDecision] = []
    for decision in decisions:
        about = f"{sample.name}, label {shortened(decision.label_id)}"
        if decision.category is not None and decision.category not in sample.class_ids:
            raise InputError(f"{about}: the data set has no category {shortened(decision.category)}")
        if decision.mask is not None:
            try:
                empty = not found.bitmap(decision).any()
            except ValueError as error:
                raise InputError(f"{about}: {error}") from None
            if empty:
                raise InputError(f"{about}: its mask is empty; delete the label instead")
        if decision.label_id is not None:
            _check_label(decision.label_id, decision.box, truth, about)
        if decision.action == "add":
            added.append(decision)
        elif decision.action != "keep" and decision.label_id is not None:
            labels[decision.label_id] = decision
    return ImageDecisions(found.image_hw, labels, added)


def _check_label(label_id: int | str, box: Sequence[float], truth: GroundTruth, about: str) -> None:
    if label_id in dict(truth.mistakes):
        return
    label_id = dict(truth.repeats).get(label_id, label_id)
    number = truth.label_ids.count(label_id)
    if number != 1:
        raise InputError(f"{about}: is there {number} times; expected once: decide on the present labels")
    now = truth.boxes[truth.label_ids.index(label_id)]
    if not np.abs(now - np.array(box)).max() <= _BOX_TOLERANCE_PX:
        raise InputError(
            f"{about}: lies elsewhere than the label that was decided on; judge the present data set again"
        )


def _write_coco(dataset: Dataset, checked: Mapping[Path, ImageDecisions], folder: Path) -> tuple[Path, Sequence[str]]:
    of_file = dataset.annotations
    assert isinstance(of_file, CocoAnnotations)
    file, expected = dataset.path, "a COCO annotation file"
    described = decode_json(read_regular(file, InputError), dict[str, Raw], str(file), InputError, expected)
    rows = decode_json(described["annotations"], list[Raw], str(file), InputError, expected)
    by_id = {id_key(of_file.images[path].id): (of_file.images[path].id, own) for path, own in checked.items()}
    seen: dict[int | str, int] = {}
    kept: list[Raw] = []
    largest, polygons = 0, True
    for row in rows:
        about = decode_json(row, _CocoRow, str(file), InputError, "image_id")
        image_id = id_key(about.image_id)
        number = seen[image_id] = seen.get(image_id, -1) + 1
        label_id = number if about.id == "?" else id_key(about.id)
        largest = max(largest, label_id if isinstance(label_id, int) else 0)
        _, own = by_id.get(image_id, (None, None))
        polygons = polygons and not bytes(about.segmentation).lstrip().startswith(b"{")
        decision = own.labels.get(label_id) if own else None
        if decision is None or own is None:
            kept.append(row)
        elif decision.action != "delete":
            kept.append(_corrected(row, decision, own))
    for given_id, own in by_id.values():
        for decision in own.added:
            largest += 1
            new = {"id": largest, "image_id": given_id, "category_id": decision.category, "iscrowd": 0}
            kept.append(_raw(new | _coco_mask(decision, own, polygons=polygons)))
    described["annotations"] = _raw(kept)
    for name, path in {entry.file_name: path for path, entry in of_file.images.items()}.items():
        _link(path, folder / "images" / Path(*parts_of(name)))
    return write_atomically(folder / file.name, msgspec.json.encode(described)), ()


class _CocoRow(msgspec.Struct):
    image_id: Id
    id: Id = "?"
    segmentation: Raw = Raw(b"null")


def _raw(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def _corrected(row: Raw, decision: LabelDecision, own: ImageDecisions) -> Raw:
    values = msgspec.json.decode(row, type=dict[str, Raw])
    if decision.action == "reclassify":
        values["category_id"] = _raw(decision.category)
    else:
        polygons = not bytes(values.get("segmentation", b"")).lstrip().startswith(b"{")
        values |= {name: _raw(value) for name, value in _coco_mask(decision, own, polygons=polygons).items()}
    return _raw(values)


def _coco_mask(decision: LabelDecision, own: ImageDecisions, *, polygons: bool) -> dict[str, Any]:
    """Return the mask as polygons or RLE, as the file has others, with its area and box; both are exact."""
    mask = own.bitmap(decision)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    rings = [joined_rings([ring.astype(np.float64) for ring in part]) for part in border_rings(mask)]
    return {
        "segmentation": [ring.astype(int).reshape(-1).tolist() for ring in rings] if polygons else decision.mask,
        "area": int(np.count_nonzero(mask)),
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
    }


def _write_yolo(dataset: Dataset, checked: Mapping[Path, ImageDecisions], folder: Path) -> tuple[Path, Sequence[str]]:
    described = read_description(dataset.path)
    splits: dict[str, str] = {}
    notices: list[str] = []
    for split in SPLITS:
        if not described.entries(split):
            continue
        try:
            opened = dataset if split == dataset.split else open_dataset(dataset.path, split)
        except InputError as error:
            notices.append(f"split {split} is left out: {error}")
            continue
        keep_originals(opened, folder)
        for image, name in zip(opened.images.files, _names(opened.images.files), strict=True):
            copy = folder / "images" / split / name
            _link(image, copy)
            text = _label_text(image, checked.get(image))
            if text is not None:
                write_atomically(label_path(copy.absolute()), text)
        splits[split] = f"images/{split}"
    whole = yaml.safe_load(decoded_text(read_regular(dataset.path, InputError)))
    kept = {key: value for key, value in whole.items() if key not in (*SPLITS, "validation", "valid", "path")}
    text = yaml.safe_dump(
        {"path": str(folder.resolve()), **splits, **kept}, allow_unicode=True, sort_keys=False, default_flow_style=None
    )
    return write_atomically(folder / dataset.path.name, text), notices


def _names(images: Sequence[Path]) -> Iterator[Path]:
    """Name each image from the folder that all lie in, without folders that say where labels are.

    Raises
    ------
    InputError
        If two have the same name then.
    """
    common = Path(os.path.commonpath([image.parent for image in images]))
    taken: dict[Path, Path] = {}
    for image in images:
        *folders, name = image.relative_to(common).parts
        short = Path(*[part for part in folders if part not in ("images", "labels")], name)
        if taken.setdefault(short, image) is not image:
            raise InputError(f"{image} and {taken[short]} would both become {short}; rename one of them")
        yield short


def _label_text(image: Path, own: ImageDecisions | None) -> bytes | str | None:
    """Return what the label file of an image holds then; None where it has none."""
    file = label_path(image)
    data = read_regular(file, InputError) if is_file(file) else None
    if own is None or not (own.labels or own.added):
        return data
    lines = decoded_text(data or b"").splitlines()
    kept = []
    for number, line in enumerate(lines):
        decision = own.labels.get(number)
        if decision is None:
            kept.append(line)
        elif decision.action == "reclassify":
            kept.append(" ".join([str(decision.category), *line.split()[1:]]))
        elif decision.action == "replace":
            kept.append(_yolo_row(line.split()[0], own.bitmap(decision)))
    kept += [_yolo_row(str(decision.category), own.bitmap(decision)) for decision in own.added]
    return "".join(f"{line}\n" for line in kept)


def _yolo_row(category: str, mask: Bool[np.ndarray, "H W"]) -> str:
    """Return a row whose polygon Ultralytics' rule fills to the mask; lines between parts of a mask come on top."""
    parts = pixel_rings(mask)
    ring = joined_rings([ring.astype(np.float64) for part in parts for ring in part]) + 0.5
    if len(ring) < 3:  # a row of two points would be a box
        ring = np.concatenate([ring, ring[-1:].repeat(3 - len(ring), axis=0)])
    values: Iterable[float] = (ring / mask.shape[::-1]).reshape(-1).tolist()
    return " ".join([category, *map(coordinate_text, values)])


def _link(original: Path, link: Path) -> None:
    """Link an image, or copy it where there can be no links.

    Raises
    ------
    InputError
        If another file is there.
    """
    with reporting_write_errors(link):
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            if link.stat().st_size == original.stat().st_size:
                return
            raise InputError(f"{link}: another file is there; choose another --write")
        try:
            link.symlink_to(original.resolve())
        except OSError:
            shutil.copyfile(original, link)
