"""maskprism labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from cyclopts import Parameter, validators

from maskprism._common.text import counted
from maskprism.cli.options import (
    Crowds,
    DetectionOptions,
    Limit,
    ModelFile,
    ReadingOptions,
    Replace,
    Seed,
    Work,
    check_out,
    load_model,
)
from maskprism.cli.output import DONE, FAILED, Outcome, Output, command, listed
from maskprism.errors import InputError

if TYPE_CHECKING:
    from maskprism.analysis.labels.held_out import SharedImage
    from maskprism.analysis.labels.study import MeasuredImage
    from maskprism.datasets import Dataset
    from maskprism.datasets.visit import Failure
    from maskprism.models import Model
    from maskprism.tables.stored_predictions import StoredModel, StoredPredictions

PRINTED = 20


@command(
    group="Diagnose",
    order=15,
    page="labels.md",
    examples=(
        "labels data.yaml --model best.pt --out labels",
        "labels data.yaml --apply decisions.json --write corrected",
    ),
    answer="`files`, `actions` (how many decisions of each kind --apply wrote; then these two alone), "
    "`images`, `labels`, `score`, `auroc`, `corrupted_share`, `trained_on`, `in_other_splits`, `worst`, `failures`",
)
def labels(
    data: Path,
    /,
    *,
    model: ModelFile = None,
    table: Path | None = None,
    folds: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    out: Annotated[Path | None, Parameter(name="--out")] = None,
    overwrite: Replace = False,
    split: Annotated[
        Literal["train", "val", "test", "all"] | None,
        Parameter(help="Part of a data.yaml, or all of them. Default: the first of val, test, train that it has."),
    ] = None,
    crowds: Crowds = "left-out",
    images: Path | None = None,
    worst: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 200,
    apply: Path | None = None,
    write: Path | None = None,
    limit: Limit = None,
    seed: Seed = 0,
    work: Work = Work(),
    reading: ReadingOptions = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    output: Output = Output(),
) -> Outcome:
    """Find the labels that are probably wrong, and say how.

    Every label gets a suspicion from 0 to 1, learned from corrupted copies of the data set's own
    labels: how it agrees with the detections, whether the prototypes can draw it, and whether its
    outline lies on edges. Detections that no label has are listed, too. Writes `labels.html`, a page to look
    at the most suspicious ones and decide; `labels.parquet`, a row for each with the kind of mistake, the
    reason and a suggested mask; and `suggestions.json`, these masks for CVAT or Label Studio.

    With `--apply` and `--write` it writes a corrected copy of the data set from the decisions that the page
    exported, without a model.

    Parameters
    ----------
    data
        A data.yaml of Ultralytics, a COCO json, or a folder that holds just one of them.
    table
        In place of --model: a table of these images that `extract --prototypes fp16 --conf 0.05` wrote. Default: none.
    folds
        In place of --model: models trained on folds, as MODEL=DATA for each. A model judges the images that are in the
        val split of its data.yaml, so none judges labels that it was trained on. Default: one --model judges all.
    out
        Folder for the results; needed without --apply.
    worst
        How many of the suspicious labels the page shows.
    apply
        decisions.json, as the page exports it. Default: look for suspicious labels.
    write
        Folder for the corrected data set, needed with --apply. Images are linked, the originals stay unchanged.
    images
        Folder of the images of a COCO json. Default: found beside the json.
    """
    from maskprism._common.extras import require
    from maskprism._common.files import make_folder, written_together
    from maskprism.analysis.labels.held_out import SAMPLE, compare_splits, pictures_compared, shared_images
    from maskprism.analysis.labels.study import LabelStudy
    from maskprism.datasets import open_dataset
    from maskprism.datasets.yolo import ALL_SPLITS
    from maskprism.integrations.label_suggestions import write_suggestions
    from maskprism.io.sources import spread
    from maskprism.reports.labels import TwinImages
    from maskprism.reports.labels_files import sentences, split_sentence, write_labels

    if apply is not None or write is not None:
        if apply is None or write is None:
            raise InputError("--apply and --write belong together: --apply decisions.json --write FOLDER")
        return _apply(data, apply, write, split, images, output, overwrite=overwrite)
    if out is None:
        raise InputError("--out is missing; `maskprism labels --help` says what it is")
    require("sklearn", "judging labels")  # says at once what is not installed
    dataset = open_dataset(data, split, images, crowds=crowds).leniently()
    dataset.check_masks_count()
    check_out(out, overwrite=overwrite, folder=True)
    if sum(option is not None for option in (model, table, folds or None)) > 1:
        raise InputError("--model, --table and --folds take each other's place; give one of them")
    if folds:
        dataset = dataset.take(spread(len(dataset), limit))
        parts, left_out = _fold_parts(dataset, folds, reading, detections, work)
        if left_out:
            output.note(f"note: {left_out} of {len(dataset)} images are held out by no fold; they are not judged")
        dataset = dataset.for_model(parts[0][0].names)
    else:
        judge = _load(model, reading, detections, work) if table is None else _stored(table, reading, detections)
        dataset = dataset.for_model(judge.names)
        dataset = dataset.take(spread(len(dataset), limit))
        parts = [(judge, dataset)]
    study = LabelStudy(dataset.names, seed)
    failures: list[Failure] = []
    for judge, judged in parts:
        for measured in _measured(judge, judged, seed, work, reading, output, failures):
            study.update(measured)
    splits = {} if folds or dataset.split is None else _splits(data, crowds)
    judged_splits = [*splits] if dataset.split == ALL_SPLITS else [name for name in splits if name == dataset.split]
    shared: dict[tuple[str, str], list[SharedImage]] = {}
    for name in judged_splits:
        for other in splits:
            if other != name and (other, name) not in shared:
                shared[name, other] = shared_images(splits[name], splits[other])
    split_of = {path: name for name, part in reversed(splits.items()) for path in part.images.paths}
    names = [image.name for image in dataset.images.pending(frozenset())]
    split_of_image = {name: split_of.get(path, "") for name, path in zip(names, dataset.images.paths, strict=True)}
    comparison = None
    for other in splits if "train" in judged_splits else ():
        twins = shared.get(("train", other)) or [one.swapped() for one in shared.get((other, "train"), ())]
        unseen = sorted(set(parts[0][0].known(splits[other])).difference(twin.other for twin in twins))
        if other == "train" or not unseen:
            continue
        if other in judged_splits:
            others = [image for image in study.images if split_of_image[image.name] == other]
        else:
            sample = splits[other].for_model(parts[0][0].names).take(unseen[n] for n in spread(len(unseen), SAMPLE))
            others = list(_measured(parts[0][0], sample, seed, work, reading, output, failures, learn=False))
        own = [image for image in study.images if split_of_image[image.name] == "train"]
        comparison = compare_splits("train", own, other, others)
        break
    report = study.compute()
    make_folder(out)
    notes = [*sentences(report), split_sentence(dataset.split, comparison, n_folds=len(folds or ()))]
    notes += [
        f"warning: {len(pairs)} of {len(splits[name])} images of {name} are in {other}, too (the same file, a copy or "
        "nearly the same picture): results on them are not about images that the model has not seen"
        for (name, other), pairs in shared.items()
        if pairs
    ]
    if shared and not pictures_compared():
        notes.append("pictures of splits are not compared, only files: that needs ImageHash (maskprism[labels])")
    if failures:
        notes.append(
            f"warning: {counted(len(failures), 'image')} cannot be judged: {failures[0].name}: "
            f"{failures[0].message}" + (", and others" if len(failures) > 1 else "")
        )
    twin_images = [
        TwinImages(_name_at(splits[name], twin.position), _name_at(splits[other], twin.other), twin.how)
        for (name, other), pairs in shared.items()
        for twin in pairs
    ]
    with written_together():
        suggestions = write_suggestions(report, out)
        models = [judge.name for judge, _ in parts]
        written = suggestions | write_labels(
            report, dataset, out, models=models, worst=worst, notes=notes, splits=split_of_image, twins=twin_images
        )
    for notice in dataset.notices:
        output.note(f"note: {notice}")
    for sentence in notes:
        print(sentence)
    printed = [row for row in report.rows if row.suspicion >= 0.5][:PRINTED]
    for row in printed:
        where = "a detection" if row.label_id is None else f"label {row.label_id}"
        print(f"  {row.suspicion:.2f}  {row.image}, {where} ({row.class_name}): {row.kind}. {row.reason}")
    output.list_files(written)
    answer = {
        "files": list(written),
        "actions": {},
        "images": report.n_images,
        "labels": report.n_labels,
        "score": report.suspicion.score,
        "auroc": report.suspicion.auroc,
        "corrupted_share": {str(level): share for level, share in report.suspicion.corrupted_share.items()},
        "trained_on": comparison
        and {
            "judged": comparison.judged,
            "other": comparison.other,
            "mask_iou": list(comparison.mask_iou),
            "recall": list(comparison.recall),
            "remembered": comparison.remembered,
        },
        "in_other_splits": {
            other if len(judged_splits) == 1 else f"{name} and {other}": len(pairs)
            for (name, other), pairs in shared.items()
        },
        "worst": [
            {"image": row.image, "label_id": row.label_id, "kind": row.kind, "suspicion": row.suspicion}
            for row in printed
        ],
        "failures": listed(failures),
    }
    return Outcome(answer, FAILED if failures and not report.n_images else DONE)


class _Judge(NamedTuple):
    """Who says what is in an image: a model with all detections that features are measured with, or a table of it."""

    predictions: Model | StoredPredictions
    name: str
    names: Mapping[int, str]

    def of(self, dataset: Dataset) -> Model | StoredModel:
        """Return what to ask about the images of a data set."""
        from maskprism.tables.stored_predictions import StoredModel, StoredPredictions

        stored = self.predictions
        return StoredModel.of(stored, dataset) if isinstance(stored, StoredPredictions) else stored

    def known(self, dataset: Dataset) -> list[int]:
        """Return the positions of the images of a data set that it can be asked about."""
        from maskprism.tables.stored_predictions import StoredModel, StoredPredictions

        if not isinstance(self.predictions, StoredPredictions):
            return [*range(len(dataset))]
        images = StoredModel.names_in(self.predictions, dataset)
        return [place for place, image in enumerate(dataset.images.pending(frozenset())) if image.name in images]


def _load(path: Path | None, reading: ReadingOptions, detections: DetectionOptions, work: Work) -> _Judge:
    from maskprism.analysis.labels.features import MIN_SCORE

    loaded = load_model(path, reading, detections, threads=work.threads)
    loaded = loaded.with_thresholds(replace(loaded.keep, conf=min(MIN_SCORE, loaded.keep.conf)))
    return _Judge(loaded, loaded.spec.name, loaded.spec.names)


def _stored(table: Path, reading: ReadingOptions, detections: DetectionOptions) -> _Judge:
    """Return a table in place of the model that it was extracted with."""
    from maskprism.tables.stored_predictions import StoredPredictions

    if (reading, detections) != (ReadingOptions(), DetectionOptions()):
        raise InputError("--table has the detections that were extracted: give options of the model to `extract`")
    stored = StoredPredictions.open(table)
    settings = stored.table.metadata
    return _Judge(stored, str(settings["model"]), {int(number): name for number, name in settings["names"].items()})


def _measured(
    judge: _Judge,
    dataset: Dataset,
    seed: int,
    work: Work,
    reading: ReadingOptions,
    output: Output,
    failures: list[Failure],
    *,
    learn: bool = True,
) -> Iterator[MeasuredImage]:
    """Measure the labels of all images; adds what fails to `failures`."""
    from maskprism.analysis.labels.study import Measuring, learned_share
    from maskprism.datasets.visit import Failure, visit

    measuring = Measuring(sorted(set(dataset.class_ids.values())), learned_share(len(dataset)) if learn else 0, seed)
    with (
        output.bar("measuring labels" if learn else "measuring another split", len(dataset)) as bar,
        work.open(reading) as engine,
        closing(visit(dataset, judge.of(dataset), measuring, engine=engine, on_progress=bar.at)) as results,
    ):
        yield from (result for result in results if not isinstance(result, Failure))
    failures += bar.failures


def _fold_parts(
    dataset: Dataset, folds: list[str], reading: ReadingOptions, detections: DetectionOptions, work: Work
) -> tuple[list[tuple[_Judge, Dataset]], int]:
    """Return each fold's model with the images that it judges, and how many images no model judges."""
    from maskprism.analysis.labels.held_out import judged_by_folds
    from maskprism.datasets import open_dataset

    named = [fold.rpartition("=") for fold in folds]
    for (path, _, data), fold in zip(named, folds, strict=True):
        if not path or not data:
            raise InputError(f"--folds {fold}: expected MODEL=DATA, such as fold1.pt=fold1.yaml")
    positions = judged_by_folds(dataset, [open_dataset(data, "val") for _, _, data in named])
    judges = [_load(Path(path), reading, detections, work) for path, _, _ in named]
    parts = [(judge, dataset.for_model(judge.names).take(own)) for judge, own in zip(judges, positions, strict=True)]
    for judge, part in parts:
        if (part.names, part.class_ids) != (parts[0][1].names, parts[0][1].class_ids):
            raise InputError(
                f"{judge.name} has other classes than {parts[0][0].name}; expected models of the same classes"
            )
    return parts, len(dataset) - sum(map(len, positions))


def _splits(data: Path, crowds: Crowds) -> dict[str, Dataset]:
    """Return the splits that can be read: val and test before train."""
    from maskprism.datasets import open_dataset

    opened = {}
    for split in ("val", "test", "train"):
        try:
            opened[split] = open_dataset(data, split, crowds=crowds).leniently()
        except InputError:  # it has no such split, or its images are not on this machine
            continue
    return opened


def _name_at(dataset: Dataset, position: int) -> str:
    (image,) = dataset.images.take([position]).pending(frozenset())
    return image.name


def _apply(
    data: Path,
    decisions: Path,
    folder: Path,
    split: Literal["train", "val", "test", "all"] | None,
    images: Path | None,
    output: Output,
    *,
    overwrite: bool,
) -> Outcome:
    """Write the corrected data set."""
    from maskprism.datasets import open_dataset
    from maskprism.datasets.decisions import read_decisions
    from maskprism.integrations.corrected_labels import keep_originals, write_corrected

    found = read_decisions(decisions)
    dataset = open_dataset(data, split or found.split, images).leniently()
    keep_originals(dataset, folder)
    check_out(folder, overwrite=overwrite, folder=True, option="--write")
    corrected = write_corrected(dataset, found, folder)
    output.notices(corrected.notices)
    print("; ".join(f"{action}: {number}" for action, number in corrected.counts.items()) or "no decisions")
    output.list_files({corrected.description: "the corrected data set", corrected.record: "the decisions"})
    files = [corrected.description, corrected.record]
    return Outcome({"files": files, "actions": dict(corrected.counts)})
