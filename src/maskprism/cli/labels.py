"""maskprism labels."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from maskprism.cli.options import (
    Crowds,
    Detections,
    Limit,
    ModelFile,
    Out,
    Overwrite,
    Reading,
    Seed,
    Split,
    Work,
    check_out,
    load_model,
)
from maskprism.cli.output import DONE, FAILED, Outcome, Output, command, listed

PRINTED = 20


@command(
    group="Diagnose",
    order=15,
    page="labels.md",
    example="labels data.yaml --model best.pt --out labels",
    answer="`files`, `images`, `labels`, `score`, `auroc`, `corrupted_share`, `worst`, `failures`",
)
def labels(
    data: Path,
    /,
    *,
    model: ModelFile = None,
    out: Out,
    overwrite: Overwrite = False,
    split: Split = None,
    crowds: Crowds = "left-out",
    images: Path | None = None,
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
    outline lies on edges. Detections that no label has are listed, too. Writes `labels.parquet`, a row
    for each, the most suspicious first, with the kind of mistake, the reason and a suggested mask.

    Parameters
    ----------
    data
        A data.yaml of Ultralytics, a COCO json, or a folder that holds just one of them.
    out
        Folder for the results.
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
    from maskprism.io.sources import spread
    from maskprism.reports.labels_files import sentences, write_labels

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
    written = write_labels(report, out)
    for notice in dataset.notices:
        output.note(f"note: {notice}")
    for sentence in sentences(report):
        print(sentence)
    worst = [row for row in report.rows if row.suspicion >= 0.5][:PRINTED]
    for row in worst:
        where = "a detection" if row.label_id is None else f"label {row.label_id}"
        print(f"  {row.suspicion:.2f}  {row.image}, {where} ({row.class_name}): {row.kind}. {row.reason}")
    output.list_files(written)
    answer = {
        "files": list(written),
        "images": report.n_images,
        "labels": report.n_labels,
        "score": report.suspicion.score,
        "auroc": report.suspicion.auroc,
        "corrupted_share": {str(level): share for level, share in report.suspicion.corrupted_share.items()},
        "worst": [
            {"image": row.image, "label_id": row.label_id, "kind": row.kind, "suspicion": row.suspicion}
            for row in worst
        ],
        "failures": listed(bar.failures),
    }
    return Outcome(answer, FAILED if bar.failures and not report.n_images else DONE)
