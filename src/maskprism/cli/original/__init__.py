"""The three commands the project began with, kept under their names.

They write one CSV row per image (its most confident instance) with columns `image_name, type,
mask_1 .. mask_K`, and figures beside it; whatever is done is skipped when they run again.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from cyclopts import App, Parameter

from maskprism._common.files import reporting_write_errors, write_atomically
from maskprism._common.process import run_command
from maskprism.cli.sample_story import FIRST_SEED as FIRST_SAMPLE_SEED
from maskprism.cli.sample_story import PICTURED as SAMPLE_SCENES
from maskprism.errors import TableError
from maskprism.io.sources import ImageFiles, VideoFile, open_source
from maskprism.io.untrusted import read_regular, shortened

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.core.prediction import Instance
    from maskprism.drawing.sheets import Sheet
    from maskprism.models import Model

TYPE = "All"
DEFAULT_FOLDER = Path("data")


def extract_features(
    *,
    model: Path | None = None,
    images_folder: Path = DEFAULT_FOLDER,
    save_folder: Path = Path("visualizations"),
    csv_filename: Path = Path("mask_coefficients.csv"),
    conf: float = 0.25,
    names: Path | None = None,
) -> int:
    """Draw the prototypes of every image of a folder and write the coefficients into a CSV file.

    Parameters
    ----------
    model
        Model file: .pt, .onnx, .tflite or OpenVINO .xml; default: the bundled demo model, which is printed.
    images_folder
        Folder with the images, subfolders included.
    save_folder
        Folder for the figures, one IMAGE.png each.
    csv_filename
        CSV file: image_name, type, mask_1 to mask_K, then score, box, class and model. It is continued if it exists.
    conf
        Least score of an instance.
    names
        Class names, for a model that has none: a data.yaml, a .txt file with one per line, a COCO json, a model.
    """
    from maskprism.drawing.sheets import prototype_grid

    def row(instance: Instance) -> list[Any]:
        return [*map(_number, [*instance.coefficients, instance.score, *instance.box]), instance.name]

    network = _open(model, conf, names)
    masks = [f"mask_{number}" for number in range(1, network.spec.prototypes + 1)]
    columns = ["image_name", "type", *masks, "score", "x1", "y1", "x2", "y2", "class_name"]
    return _over_images(
        network, images_folder, csv_filename, columns, row, save_folder, "", lambda _, i: prototype_grid(i)
    )


def extract_specific_feature(
    *,
    model: Path | None = None,
    images_folder: Path = DEFAULT_FOLDER,
    save_folder: Path = Path("visualizations"),
    csv_filename: Path = Path("mask_coefficient.csv"),
    coefficient_index: int = 0,
    conf: float = 0.25,
    names: Path | None = None,
) -> int:
    """Write one coefficient of every image of a folder into a CSV file, and draw what it does.

    Parameters
    ----------
    model
        Model file: .pt, .onnx, .tflite or OpenVINO .xml; default: the bundled demo model, which is printed.
    images_folder
        Folder with the images, subfolders included.
    save_folder
        Folder for the figures, one IMAGE_maskN.png each, where N is the index + 1, as CSV columns are counted.
    csv_filename
        CSV file: image_name, type, the coefficient, then score, class and model. It is continued if it exists.
    coefficient_index
        Which coefficient, from 0 to K - 1 (31 is the last of 32).
    conf
        Least score of an instance.
    names
        Class names, for a model that has none: a data.yaml, a .txt file with one per line, a COCO json, a model.
    """
    from maskprism.core.decomposition import check_indices
    from maskprism.drawing.sheets import coefficient_view

    network = _open(model, conf, names)
    check_indices([coefficient_index], network.spec.prototypes)
    return _over_images(
        network,
        images_folder,
        csv_filename,
        ["image_name", "type", f"mask_coefficient_{coefficient_index}", "score", "class_name"],
        lambda i: [_number(i.coefficients[coefficient_index]), _number(i.score), i.name],
        save_folder,
        f"_mask{coefficient_index + 1}",
        lambda image, i: coefficient_view(image, i, coefficient_index),
    )


def generate_visualizations(
    *, csv_filename: Path = Path("mask_coefficients.csv"), save_folder: Path = Path("visualizations")
) -> int:
    """Draw histograms of the coefficients in a CSV file and the heat map of their correlation.

    Parameters
    ----------
    csv_filename
        CSV file with columns mask_1 to mask_K, as extract_features writes it.
    save_folder
        Folder for mask_coefficients_histograms.png and mask_coefficients_heatmap.png.
    """
    from maskprism.drawing import charts
    from maskprism.drawing.figures import save

    coefficients, labels = _read_masks(csv_filename)
    figures = {"mask_coefficients_histograms": charts.histograms(coefficients, labels)}
    if len(coefficients) > 1:
        figures["mask_coefficients_heatmap"] = charts.correlation(coefficients, labels)
    else:
        print(f"{csv_filename}: one row only; a correlation needs at least two")
    for name, figure in figures.items():
        path = save_folder / f"{name}.png"
        save(figure, path, dpi=130)
        print(f"{path}: {len(coefficients)} instances")
    return 0


def run(command: Callable[..., int]) -> None:
    """Run one of the commands on the command line; mistakes end in one line and exit code 1."""
    keep_underscores = Parameter(name_transform=str)
    app = App(
        help_format="markdown",
        default_parameter=keep_underscores,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app.default(command)
    sys.exit(run_command(command.__name__, app, resumes="run it again to go on"))


def _with_images(folder: Path) -> Path:
    """Return the folder; if it is the default one and holds nothing yet, with sample scenes drawn into it."""
    from maskprism.datasets.scenes import draw_scene

    if folder == DEFAULT_FOLDER and not any(path.name != ".gitkeep" for path in folder.glob("*")):
        for number in range(SAMPLE_SCENES):
            image = draw_scene(FIRST_SAMPLE_SEED + number).image
            write_atomically(folder / f"scene_{number}.png", cv2.imencode(".png", image)[1].tobytes())
        print(f"{folder}: held no images; {SAMPLE_SCENES} sample scenes are drawn there")
    return folder


def _open(model: Path | None, conf: float, names: Path | None) -> Model:
    from maskprism.models import SAMPLE, load

    if model is None:
        print(
            "NO --model IS GIVEN: the bundled demo model is used. It knows drawn shapes only, so what it says of your "
            "images means nothing. Name yours with --model best.pt"
        )
    return load(SAMPLE if model is None else model, conf=conf, names=names)


def _over_images(
    network: Model,
    images_folder: Path,
    csv_path: Path,
    columns: list[str],
    row: Callable[[Instance], list[Any]],
    save_folder: Path,
    figure_suffix: str,
    sheet: Callable[[np.ndarray[Any, Any], Instance], Sheet],
) -> int:
    """One CSV row and one figure for the most confident instance of every image not done yet."""
    from maskprism.datasets.visit import Failure, visit
    from maskprism.drawing import raster

    source = open_source(_with_images(images_folder), without=save_folder)
    model = f"{network.spec.name} {network.spec.sha256[:12]}"
    columns = [*columns, "model"]
    done = _rows_done(csv_path, columns, model)
    figure_names = _figure_names(source, done)
    written = skipped = failed = 0
    with _appending(csv_path, columns) as append, closing(visit(source.pending(done), network)) as results:
        for result in results:
            if isinstance(result, Failure):
                print(f"{result.name}: failed ({result.message})")
                failed += 1
            elif not len(result.prediction):
                print(f"{result.name}: no instance above {network.keep.conf}; skipped")
                skipped += 1
            else:
                instance = result.prediction[int(np.argmax(result.prediction.scores))]
                figure = save_folder / f"{figure_names.get(result.name, result.name)}{figure_suffix}.png"
                raster.save(sheet(result.image, instance), figure)
                append([result.name, TYPE, *row(instance), model])
                written += 1
    print(
        f"{written} images written to {csv_path} and {save_folder}, {len(done)} were done before, "
        f"{skipped} without an instance, {failed} failed"
    )
    return 1 if failed and not (written or skipped or done) else 0


def _figure_names(source: ImageFiles | VideoFile, done: Collection[str]) -> dict[str, str]:
    """Return the name of every image of a folder without its suffix; with it, and a notice, where that is taken.

    Images that are done come first, so that new ones never take the name of their figure.
    """
    if isinstance(source, VideoFile):
        return {}
    names = [item.name for item in source.pending(frozenset())]
    found: dict[str, str] = {}
    owners: dict[str, str] = {}  # file systems may take "A" for "a"
    for name in sorted(names, key=lambda name: name not in done):
        stem = str(PurePosixPath(name).with_suffix(""))
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        found[name] = next(one for one in itertools.chain((stem, name), numbered) if one.casefold() not in owners)
        if found[name] != stem and name not in done:
            print(f"{name}: has the name of {owners[stem.casefold()]}; its figure is {found[name]}*.png")
        owners[found[name].casefold()] = name
    return found


def _rows_done(path: Path, columns: Sequence[str], model: str) -> set[str]:
    """Return the images that a CSV file has; a last line that an interruption cut short is removed."""
    data = read_regular(path, TableError) if os.path.exists(path) else b""  # noqa: PTH110  (never raises)
    if not data:
        return set()
    try:
        whole = data[: data.rfind(b"\n") + 1]
        rows = [row for row in csv.reader(io.StringIO(whole.decode("utf-8"), newline="")) if row]  # no blank lines
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: cannot be read as CSV ({error})") from None
    begun = not rows and ",".join(columns).encode().startswith(data)  # a header that was cut short is ours too
    if not begun and (not rows or rows[0] != list(columns)):
        found = rows[0] if rows else data.decode("utf-8", errors="replace").split(",")
        raise TableError(
            f"{path}: has other columns ({', '.join(found[:4])}, ... {len(found)} in all) than this run would "
            f"write ({', '.join(columns[:4])}, ... {len(columns)} in all); choose another --csv_filename"
        )
    if others := {row[-1] for row in rows[1:]} - {model}:
        raise TableError(
            f"{path}: has rows of another model ({', '.join(sorted(others))}; this one is {model}); "
            "choose another --csv_filename"
        )
    if len(whole) < len(data):  # it is ours, and an interruption cut its last line short
        write_atomically(path, whole, failure=TableError)
    return {row[0] for row in rows[1:]}


@contextmanager
def _appending(path: Path, columns: Sequence[str]) -> Iterator[Callable[[list[Any]], None]]:
    """Append rows to a CSV file, each on disk before the next image starts."""
    with reporting_write_errors(path, failure=TableError):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not path.exists() or path.stat().st_size == 0
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")

            def append(row: list[Any]) -> None:
                writer.writerow(row)
                file.flush()

            if fresh:
                append(list(columns))
            yield append


def _read_masks(path: Path) -> tuple[Float32[np.ndarray, "N K"], list[str]]:
    """Return the mask_1 .. mask_K columns of a CSV file, and their names."""
    if not os.path.lexists(path):
        raise TableError(f"{shortened(path)}: there is no such file; run extract_features first")
    try:
        text = read_regular(path, TableError).decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: cannot be read as CSV ({error})") from None
    names = [name for name in (rows[0] if rows else {}) if name and name.startswith("mask_")]
    if not names:
        raise TableError(f"{path}: has no rows with columns mask_1, mask_2, ...; run extract_features first")
    try:
        values = np.array([[float(row[name]) for name in names] for row in rows], dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise TableError(f"{path}: a mask column holds something else than a number ({error})") from None
    return values, names


def _number(value: float) -> str:
    """Return the shortest text that reads back as the same float32."""
    return str(np.float32(value))
