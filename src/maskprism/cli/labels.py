"""maskprism labels."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

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

PRINTED = 20


@command(
    group="Diagnose",
    order=15,
    page="labels.md",
    example="labels data.yaml --model best.pt --out labels",
    answer="`files`, `actions` (how many decisions of each kind --apply wrote; then these two alone), "
    "`images`, `labels`, `score`, `auroc`, `corrupted_share`, `worst`, `failures`",
)
def labels(
    data: Path,
    /,
    *,
    model: ModelFile = None,
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
    """Find the labels of a data set that are probably wrong, and say how.

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
    from dataclasses import replace

    from maskprism._common.extras import require
    from maskprism._common.files import make_folder
    from maskprism.analysis.labels.features import MIN_SCORE
    from maskprism.analysis.labels.study import LabelStudy, Measuring, learned_share
    from maskprism.datasets import open_dataset
    from maskprism.datasets.visit import Failure, visit
    from maskprism.integrations.label_suggestions import write_suggestions
    from maskprism.io.sources import spread
    from maskprism.reports.labels_files import sentences, write_labels

    if apply is not None or write is not None:
        if apply is None or write is None:
            raise InputError("--apply and --write belong together: --apply decisions.json --write FOLDER")
        return _apply(data, apply, write, split, images, output, overwrite=overwrite)
    if out is None:
        raise InputError("--out is missing; `maskprism labels --help` says what it is")
    require("sklearn", "judging labels")  # says at once what is not installed
    dataset = open_dataset(data, split, images, crowds=crowds)
    check_out(out, overwrite=overwrite, folder=True)
    loaded = load_model(model, reading, detections, threads=work.threads)
    loaded = loaded.with_thresholds(replace(loaded.keep, conf=min(MIN_SCORE, loaded.keep.conf)))
    dataset = dataset.for_model(loaded.spec.names)
    dataset = dataset.take(spread(len(dataset), limit))
    study = LabelStudy(dataset.names, seed)
    measuring = Measuring(sorted(set(dataset.class_ids.values())), learned_share(len(dataset)), seed)
    with (
        output.bar("measuring labels", len(dataset)) as bar,
        work.open(reading) as engine,
        closing(visit(dataset, loaded, measuring, engine=engine, on_progress=bar.at)) as results,
    ):
        for result in results:
            if not isinstance(result, Failure):
                study.update(result)
    report = study.compute()
    make_folder(out)
    suggestions = write_suggestions(report, out)
    notes = sentences(report)
    written = write_labels(report, dataset, out, models=[loaded.spec.name], worst=worst, notes=notes) | suggestions
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
        "worst": [
            {"image": row.image, "label_id": row.label_id, "kind": row.kind, "suspicion": row.suspicion}
            for row in printed
        ],
        "failures": listed(bar.failures),
    }
    return Outcome(answer, FAILED if bar.failures and not report.n_images else DONE)


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
