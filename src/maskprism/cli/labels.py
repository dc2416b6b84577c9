"""maskprism labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators

from maskprism.cli.options import (
    Crowds,
    Detections,
    Limit,
    ModelFile,
    Reading,
    Replace,
    Seed,
    Split,
    Work,
    check_out,
    load_model,
)
from maskprism.cli.output import DONE, FAILED, Outcome, Output, command, listed
from maskprism.errors import InputError

if TYPE_CHECKING:
    from maskprism.analysis.labels.study import MeasuredImage
    from maskprism.datasets import Dataset
    from maskprism.datasets.visit import Failure
    from maskprism.models import Model

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
    folds: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    out: Annotated[Path | None, Parameter(name="--out")] = None,
    overwrite: Replace = False,
    split: Split = None,
    crowds: Crowds = "left-out",
    images: Path | None = None,
    worst: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 200,
    apply: Path | None = None,
    write: Path | None = None,
    limit: Limit = None,
    seed: Seed = 0,
    work: Work = Work(),
    reading: Reading = Reading(),
    detections: Detections = Detections(),
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
    folds
        In place of --model: models trained on folds, as MODEL=DATA for each. A model judges the images that are in the
        val split of its data.yaml, so none judges labels that it was trained on.
    out
        Folder for the results; needed without --apply.
    worst
        How many of the suspicious labels the page shows.
    apply
        decisions.json, as the page exports it.
    write
        Folder for the corrected data set, needed with --apply. Images are linked, the originals stay unchanged.
    images
        Folder of the images of a COCO json. Default: found beside the json.
    """
    from maskprism._common.extras import require
    from maskprism._common.files import make_folder
    from maskprism.analysis.labels.held_out import SAMPLE, compare_splits, shared_images
    from maskprism.analysis.labels.study import LabelStudy
    from maskprism.datasets import open_dataset
    from maskprism.integrations.label_suggestions import write_suggestions
    from maskprism.io.sources import spread
    from maskprism.reports.labels_files import sentences, split_sentence, write_labels

    if apply is not None or write is not None:
        if apply is None or write is None:
            raise InputError("--apply and --write belong together: --apply decisions.json --write FOLDER")
        return _apply(data, apply, write, split, images, output, overwrite=overwrite)
    if out is None:
        raise InputError("--out is missing; `maskprism labels --help` says what it is")
    require("sklearn", "judging labels")  # says at once what is not installed
    whole = dataset = open_dataset(data, split, images, crowds=crowds)
    check_out(out, overwrite=overwrite, folder=True)
    if folds:
        if model is not None:
            raise InputError("--folds takes the place of --model; give one of them")
        dataset = dataset.take(spread(len(dataset), limit))
        parts, left_out = _fold_parts(dataset, folds, reading, detections, work)
        if left_out:
            output.note(f"note: {left_out} of {len(dataset)} images are held out by no fold; they are not judged")
        loaded = parts[0][0]
        dataset = dataset.for_model(loaded.spec.names)
    else:
        loaded = _load(model, reading, detections, work)
        dataset = dataset.for_model(loaded.spec.names)
        dataset = dataset.take(spread(len(dataset), limit))
        parts = [(loaded, dataset)]
    study = LabelStudy(dataset.names, seed)
    failures: list[Failure] = []
    for judge, judged in parts:
        for measured in _measured(judge, judged, seed, work, reading, output, failures):
            study.update(measured)
    comparison = None
    others_of = [] if folds else _other_splits(data, dataset, images, crowds)
    shared = {str(other.split): shared_images(whole, other) for other in others_of}
    for other in others_of if dataset.split == "train" else ():
        unseen = sorted({*range(len(other))}.difference(shared_images(other, whole)))
        if not unseen:
            continue
        sample = other.for_model(loaded.spec.names).take(unseen[place] for place in spread(len(unseen), SAMPLE))
        others = list(_measured(loaded, sample, seed, work, reading, output, failures, learn=False))
        comparison = compare_splits("train", study.images, str(other.split), others)
        break
    report = study.compute()
    make_folder(out)
    suggestions = write_suggestions(report, out)
    notes = [*sentences(report), split_sentence(dataset.split, comparison, n_folds=len(folds or ()))]
    notes += [
        f"warning: {len(twins)} of {len(whole)} images of {dataset.split} are in {split_name}, too (the same file or "
        "a copy): results on them are not about images that the model has not seen"
        for split_name, twins in shared.items()
        if twins
    ]
    written = (
        write_labels(report, dataset, out, models=[one.spec.name for one, _ in parts], worst=worst, notes=notes)
        | suggestions
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
        "in_other_splits": {name: len(twins) for name, twins in shared.items()},
        "worst": [
            {"image": row.image, "label_id": row.label_id, "kind": row.kind, "suspicion": row.suspicion}
            for row in printed
        ],
        "failures": listed(failures),
    }
    return Outcome(answer, FAILED if failures and not report.n_images else DONE)


def _load(path: Path | None, reading: Reading, detections: Detections, work: Work) -> Model:
    """Return a model with the detections that features are measured with."""
    from maskprism.analysis.labels.features import MIN_SCORE

    loaded = load_model(path, reading, detections, threads=work.threads)
    return loaded.with_thresholds(replace(loaded.keep, conf=min(MIN_SCORE, loaded.keep.conf)))


def _measured(
    model: Model,
    dataset: Dataset,
    seed: int,
    work: Work,
    reading: Reading,
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
        closing(visit(dataset, model, measuring, engine=engine, on_progress=bar.at)) as results,
    ):
        yield from (result for result in results if not isinstance(result, Failure))
    failures += bar.failures


def _fold_parts(
    dataset: Dataset, folds: list[str], reading: Reading, detections: Detections, work: Work
) -> tuple[list[tuple[Model, Dataset]], int]:
    """Return each fold's model with the images that it judges, and how many images no model judges."""
    from maskprism.analysis.labels.held_out import judged_by_folds
    from maskprism.datasets import open_dataset

    named = [fold.rpartition("=") for fold in folds]
    for (path, _, data), fold in zip(named, folds, strict=True):
        if not path or not data:
            raise InputError(f"--folds {fold}: expected MODEL=DATA, such as fold1.pt=fold1.yaml")
    positions = judged_by_folds(dataset, [open_dataset(data, "val") for _, _, data in named])
    models = [_load(Path(path), reading, detections, work) for path, _, _ in named]
    parts = [(one, dataset.for_model(one.spec.names).take(own)) for one, own in zip(models, positions, strict=True)]
    for one, part in parts:
        if (part.names, part.class_ids) != (parts[0][1].names, parts[0][1].class_ids):
            raise InputError(
                f"{one.spec.name} has other classes than {parts[0][0].spec.name}; expected models of the same classes"
            )
    return parts, len(dataset) - sum(map(len, positions))


def _other_splits(data: Path, dataset: Dataset, images: Path | None, crowds: Crowds) -> list[Dataset]:
    """Return the other splits that can be read: val and test before train."""
    from maskprism.datasets import open_dataset

    others = []
    splits: tuple[Literal["val", "test", "train"], ...] = ("val", "test", "train")
    for split in splits if dataset.split else ():
        try:
            if split != dataset.split:
                others.append(open_dataset(data, split, images, crowds=crowds))
        except InputError:  # it has no such split, or its images are not on this machine
            continue
    return others


def _apply(
    data: Path,
    decisions: Path,
    folder: Path,
    split: Literal["train", "val", "test"] | None,
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
    dataset = open_dataset(data, split or found.split, images)
    keep_originals(dataset, folder)
    check_out(folder, overwrite=overwrite, folder=True, option="--write")
    corrected = write_corrected(dataset, found, folder)
    output.notices(corrected.notices)
    print("; ".join(f"{action}: {number}" for action, number in corrected.counts.items()) or "no decisions")
    output.list_files({corrected.description: "the corrected data set", corrected.record: "the decisions"})
    files = [corrected.description, corrected.record]
    return Outcome({"files": files, "actions": dict(corrected.counts)})
