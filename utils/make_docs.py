"""Make the generated parts of the documentation: docs/cli.md and docs/images.

python utils/make_docs.py
python utils/make_docs.py --text    # without the pictures
python utils/make_docs.py step_20.onnx step_60.onnx ...    # and the film strip of these checkpoints
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from PIL import Image

from maskprism.cli import find_commands, make_app
from maskprism.cli.output import EXIT_CODES
from maskprism.datasets.scenes import draw_scene
from maskprism.drawing import raster, sheets
from maskprism.models import load

DOCS = Path(__file__).resolve().parent.parent / "docs"
SCENE = 3
HEADER = "<!-- made by utils/make_docs.py; do not edit -->\n\n"


def cli_reference() -> str:
    """The command line as Markdown."""
    reference = make_app().generate_docs(output_format="markdown", heading_level=1).rstrip()
    declared = {function.__name__: declaration for function, declaration in find_commands().items()}
    for name, declaration in declared.items():
        examples = "\n".join(f"$ maskprism {example}" for example in declaration.examples)
        below = f"\n\n```text\n{examples}\n```\n\nMore: [{declaration.page}]({declaration.page})."
        reference = re.sub(
            rf"(\n## maskprism {name}\n\n```console\n.*?\n```)", rf"\1{below}", reference, flags=re.DOTALL
        )
    reference, shared = options_once(reference)
    keys = "\n".join(f"| `{name}` | {declaration.answer} |" for name, declaration in declared.items())
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    more = "What all commands share, and completion: [in scripts](scripts.md)."
    return (
        f"{HEADER}{reference}\n\n## Shared options\n\n{shared}\n\n"
        f"## The outcome as JSON\n\nWith `--json`, one object on stdout with these keys:\n\n"
        f"| command | keys |\n|---|---|\n{keys}\n\n## Exit codes\n\n| | |\n|---|---|\n{codes}\n\n{more}\n"
    )


SHARED = ("Reading the model", "Detections", "Where the work is done", "Output")
"""The groups of options that mean the same in every command that has them."""


def options_once(reference: str) -> tuple[str, str]:
    """Take the groups of shared options out of every command; give the rest, and each group once.

    Where a command has more options in such a group than others (`compare`: those of its second model), they stay.
    """
    group = re.compile(rf"\n\*\*({'|'.join(SHARED)})\*\*:\n\n((?:[*] .*\n(?: +.*\n)*)+)")
    option = re.compile(r"[*] .*\n(?: +.*\n)*")
    texts: dict[str, list[str]] = {}
    for title, text in group.findall(f"{reference}\n"):
        rows = option.findall(text)
        if title not in texts or len(rows) < len(texts[title]):
            texts[title] = rows

    def link(match: re.Match[str]) -> str:
        own = "".join(row for row in option.findall(match[2]) if row not in texts[match[1]])
        anchor = match[1].lower().replace(" ", "-")
        return f"\n**[{match[1]}](#{anchor})**\n" + (f"\n{own}" if own else "")

    shared = "\n".join(f"### {title}\n\n{''.join(texts[title])}" for title in SHARED)
    return group.sub(link, f"{reference}\n").rstrip(), shared.rstrip()


def write_images(folder: Path) -> None:
    """The pictures of the documentation: the bundled model on a scene it has never seen."""
    image = draw_scene(SCENE).image
    prediction = replace(load("sample").predict(image), source=f"scene {SCENE}")
    instance = next(one for one in prediction if one.name == "star")
    pictures = {
        "assembly": sheets.assembly_strip(image, instance),
        "contributions": sheets.contribution_grid(instance),
        "crop": sheets.crop_view(image, instance),
        "overview": sheets.overview(image, prediction),
    }
    folder.mkdir(exist_ok=True)
    for name, sheet in pictures.items():
        picture = Image.fromarray(raster.draw(sheet))
        picture.thumbnail((1600, 1600))
        picture.save(folder / f"{name}.webp", quality=90, method=6)


def write_attribution_images(folder: Path) -> None:
    """What docs/attribution.md reads: a ring that another object hides in part."""
    from maskprism.analysis.instance.regions import pixel_query, truth_blame
    from maskprism.drawing import attribution_charts as attribution
    from maskprism.drawing.roles import roles_sheet

    scene = draw_scene(SCENE)
    prediction = replace(load("sample").predict(scene.image), source=f"scene {SCENE}")
    ring = next(one for one in prediction if one.name == "ring")
    truth = max(scene.masks, key=lambda mask: int((mask & ring.mask("image")).sum()))
    picture = Image.fromarray(raster.draw(roles_sheet(scene.image, ring)))
    picture.thumbnail((1300, 1400))
    picture.save(folder / "roles.webp", quality=85, method=6)
    figures = {
        "pixel": attribution.waterfall(ring, pixel_query(ring, 67, 19), image=scene.image),
        "blame": attribution.blame(scene.image, ring, truth_blame(ring, truth)),
        "attribution": attribution.attribution(ring),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.webp", dpi=110, pil_kwargs={"quality": 88, "method": 6})


def write_comparison_images(folder: Path) -> None:
    """The bundled model against a careless int8 version of itself, as docs/quantisation.md makes it."""
    import tempfile

    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from maskprism.analysis.comparison.paired_run import compare
    from maskprism.drawing.comparison import drift_figure, parts_figure
    from maskprism.drawing.pairs import worst_pairs
    from maskprism.models import SAMPLE_MODEL

    with tempfile.TemporaryDirectory() as scratch:
        plain, int8 = Path(scratch) / "float.onnx", Path(scratch) / "int8.onnx"
        quant_pre_process(SAMPLE_MODEL, plain, skip_symbolic_shape=True)
        images = (draw_scene(seed).image[None, ..., ::-1] for seed in range(1000, 1008))
        batches = ({"images": one.transpose(0, 3, 1, 2).astype("f4") / 255} for one in images)
        quantize_static(plain, int8, SimpleNamespace(get_next=lambda: next(batches, None)))
        found = compare(plain, int8, [draw_scene(seed).image for seed in range(24)], worst=3)
    for name, figure in (("parts", parts_figure(found)), ("drift", drift_figure(found))):
        figure.savefig(folder / f"compare-{name}.webp", dpi=110, pil_kwargs={"quality": 90, "method": 6})
    Image.fromarray(raster.draw(worst_pairs(found))).save(folder / "compare-worst.webp", quality=85, method=6)


def write_basis_images(folder: Path) -> None:
    """What docs/basis.md and docs/prototypes.md show: the bundled model over 64 scenes it has never seen."""
    import numpy as np

    from maskprism.analysis.prototypes.basis import CanonicalBasis, Usage
    from maskprism.analysis.prototypes.positional import study_prototypes
    from maskprism.drawing import basis, cards
    from maskprism.io.sources import SourceImage

    model = load("sample")
    items = [SourceImage(f"scene {seed}", draw_scene(seed).image) for seed in range(64)]
    usage = Usage(model.spec.prototypes)
    for item in items:
        usage.update(model.predict(item.read()))
    canonical = CanonicalBasis.of(usage)
    image = draw_scene(SCENE).image
    beside, _ = basis.raw_and_canonical(image, model.predict(image), usage, canonical)
    study, movement = study_prototypes(items, model)
    sheet = raster.draw(cards.sheet_of_all(study, movement, model="the bundled model"))
    for name, pixels in (("basis", beside), ("prototypes", sheet)):
        picture = Image.fromarray(pixels)
        picture.thumbnail((1600, 1600))
        picture.save(folder / f"{name}.webp", quality=85, method=6)
    settings = {"quality": 88, "method": 6}
    figure = basis.spectrum(usage, canonical, model="the bundled model")
    figure.savefig(folder / "basis-spectrum.webp", dpi=100, pil_kwargs=settings)
    for name, shares in (("positional", study.position), ("semantic", study.class_share)):
        figure = cards.card(study, int(np.nanargmax(shares)), movement, model="the bundled model")
        figure.savefig(folder / f"prototype-{name}.webp", dpi=105, pil_kwargs=settings)


def write_reduction_images(folder: Path) -> None:
    """What docs/reduce.md reads: the bundled model with fewer prototypes, over 64 scenes it has never seen."""
    from maskprism.analysis.reduction.reduced_file import BeforeAfter, matched_ious
    from maskprism.analysis.reduction.trade_off import fit_halves, measure, reductions
    from maskprism.drawing.reduction import before_after, trade_off_figure

    predictions = load("sample").predict([draw_scene(seed).image for seed in range(64)])
    halves = fit_halves(predictions)
    figure = trade_off_figure(measure(predictions, halves), 8)
    figure.savefig(folder / "reduce-curve.webp", dpi=110, pil_kwargs={"quality": 90, "method": 6})
    (reduction,) = reductions(halves[0] + halves[1], "projection", [8])
    full, image = predictions[SCENE], draw_scene(SCENE).image
    reduced = reduction.apply(full)
    sheet = before_after([BeforeAfter(image, full, reduced, float(matched_ious(full, reduced).mean()))])
    picture = Image.fromarray(raster.draw(sheet))
    picture.thumbnail((1500, 1500))
    picture.save(folder / "reduce-masks.webp", quality=88, method=6)


def write_budget_images(folder: Path) -> None:
    """What docs/error_budget.md reads: the bundled model over 64 scenes it has never seen."""
    import tempfile

    from maskprism.analysis.truth.counterfactual_masks import counterfactuals_of
    from maskprism.analysis.truth.error_budget import ErrorBudget, budgets
    from maskprism.datasets import open_dataset
    from maskprism.datasets.scenes import write_dataset
    from maskprism.drawing import error_budget as views

    model = load("sample")
    with tempfile.TemporaryDirectory() as scratch:
        dataset = open_dataset(write_dataset(scratch, 64, seed=7000, validation_share=1)).for_model(model.spec.names)
        samples = {sample.name: sample.read() for sample in dataset}
    rows = [row for name, (image, truth) in samples.items() for row in budgets(model.predict(image), truth, name)]
    budget = ErrorBudget(rows)
    for name, figure in (("waterfall", views.waterfall(budget)), ("groups", views.groups(budget))):
        figure.savefig(folder / f"budget-{name}.webp", dpi=110, pil_kwargs={"quality": 90, "method": 6})
    (worst,) = budget.worst(1, by="coefficients")
    image, truth = samples[worst.image]
    masks = next(
        masks for pair, masks in counterfactuals_of(model.predict(image), truth) if pair.instance == worst.instance
    )
    picture = Image.fromarray(raster.draw(views.instance_strip(image, masks)))
    picture.thumbnail((1800, 1800))
    picture.save(folder / "budget-strip.webp", quality=88, method=6)


def write_diagnosis_images(folder: Path) -> None:
    """What docs/diagnose.md reads: the bundled model over the 64 scenes of its first command."""
    import tempfile

    from maskprism.analysis.dataset.diagnosis import diagnose
    from maskprism.datasets import open_dataset
    from maskprism.datasets.scenes import write_dataset
    from maskprism.drawing import diagnosis as views

    with tempfile.TemporaryDirectory() as scratch:
        dataset = open_dataset(write_dataset(scratch, 64, validation_share=1))
        found = diagnose(dataset, load("sample", conf=0.001, multi_label=True, threads=1))
    figures = (("perfect", views.perfect_figure(found)), ("errors", views.errors_figure(found)))
    for name, figure in figures:
        figure.savefig(folder / f"diagnose-{name}.webp", dpi=110, pil_kwargs={"quality": 90, "method": 6})


def write_tuning_image(folder: Path) -> None:
    """What docs/tune.md reads: the bundled model and 128 scenes."""
    import tempfile

    from maskprism.analysis.tuning import tune
    from maskprism.datasets import open_dataset
    from maskprism.datasets.scenes import write_dataset
    from maskprism.drawing.tuning import curve_figure

    with tempfile.TemporaryDirectory() as scratch:
        found = tune(open_dataset(write_dataset(scratch, 128, validation_share=1)), load("sample", threads=1))
    curve_figure(found).savefig(folder / "tune-curve.webp", dpi=110, pil_kwargs={"quality": 90, "method": 6})


def write_filmstrip_image(folder: Path, checkpoints: list[str]) -> None:
    """What docs/training.md shows: models of utils/train_sample_model.py by training step, step_20.onnx and on."""
    from maskprism.drawing.filmstrip import filmstrip_sheet

    image = draw_scene(SCENE).image
    frames = {Path(one).stem.replace("_", " "): load(one, conf=0.001).predict(image) for one in checkpoints}
    sheet = filmstrip_sheet(frames, title=f"Prototypes from checkpoint to checkpoint: scene {SCENE}")
    picture = Image.fromarray(raster.draw(sheet))
    picture.thumbnail((1300, 1600))
    picture.save(folder / "filmstrip.webp", quality=82, method=6)


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(cli_reference(), encoding="utf-8")
    if sys.argv[1:] == ["--text"]:
        sys.exit()
    write_images(DOCS / "images")
    write_attribution_images(DOCS / "images")
    write_comparison_images(DOCS / "images")
    write_basis_images(DOCS / "images")
    write_reduction_images(DOCS / "images")
    write_budget_images(DOCS / "images")
    write_diagnosis_images(DOCS / "images")
    write_tuning_image(DOCS / "images")
    if sys.argv[1:]:  # checkpoints of a training, which take more than minutes to make
        write_filmstrip_image(DOCS / "images", sys.argv[1:])
