"""The original commands, run as scripts from the root of the repository or elsewhere."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import maskprism
from helpers import in_process
from helpers.in_process import Done
from helpers.tiny_models import Tiny
from helpers.undrawn import without_drawing
from maskprism.datasets.scenes import draw_scene

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, *arguments: object, cwd: Path) -> Done:
    return in_process.script(ROOT / script, *arguments, cwd=cwd)


MISTAKES = {
    "src/extract_features.py": ["--model", "missing.onnx"],
    "src/generate_visualizations.py": ["--csv_filename", "missing.csv"],
    "extract_specific_feature.py": ["--model", "missing.onnx"],
}


@pytest.mark.parametrize("script", MISTAKES)
def test_a_process_of_its_own_says_the_same(script: str, project: Path) -> None:
    """The other tests stay in this process."""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    given = [sys.executable, str(ROOT / script), *MISTAKES[script]]
    done = subprocess.run(given, cwd=project, env=environment, capture_output=True, text=True, timeout=120)
    seen = run(script, *MISTAKES[script], cwd=project)
    assert done.returncode == 1
    assert (done.returncode, done.stdout, done.stderr) == (seen.returncode, seen.stdout, seen.stderr)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Tiny(prototypes=32).save(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with data/ as the original had it."""
    (tmp_path / "data" / "more").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.png", "more/a.png"]):
        cv2.imwrite(str(tmp_path / "data" / name), cv2.resize(draw_scene(number).image, (160, 120)))
    return tmp_path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_extract_features(project: Path, model: Path) -> None:
    (project / "data" / "bad.jpg").write_text("no image")
    (project / "names.txt").write_text("apple\npear\nplum\n")
    result = run("src/extract_features.py", "--model", model, "--names", "names.txt", cwd=project)
    assert result.returncode == 0, result.stderr
    assert "bad.jpg: failed" in result.stdout
    assert "3 images written" in result.stdout
    rows = rows_of(project / "mask_coefficients.csv")
    assert list(rows[0])[:34] == ["image_name", "type", *(f"mask_{n}" for n in range(1, 33))]
    assert [row["image_name"] for row in rows] == ["a.png", "b.png", "more/a.png"]
    assert {row["type"] for row in rows} == {"All"}
    network = maskprism.load(model, names=["apple", "pear", "plum"])
    for row in rows:
        prediction = network.predict(project / "data" / row["image_name"])
        best = prediction[int(np.argmax(prediction.scores))]
        written = np.array([row[f"mask_{n}"] for n in range(1, 33)], dtype=np.float32)
        np.testing.assert_array_equal(written, best.coefficients)
        assert np.float32(row["score"]) == np.float32(best.score)
        np.testing.assert_array_equal(np.array([row[side] for side in ("x1", "y1", "x2", "y2")], np.float32), best.box)
        assert row["class_name"] == best.name
        assert row["model"].startswith("tiny.onnx ")
    figures = {str(p.relative_to(project / "visualizations")) for p in (project / "visualizations").rglob("*.png")}
    assert figures == {"a.png", "b.png", "more/a.png"}


def test_running_twice_skips_what_is_done(project: Path, model: Path) -> None:
    run("src/extract_features.py", "--model", model, cwd=project)
    table = project / "mask_coefficients.csv"
    before = table.read_bytes()
    figure = project / "visualizations" / "a.png"
    stamp = figure.stat().st_mtime_ns
    result = run("src/extract_features.py", "--model", model, cwd=project)
    assert "0 images written" in result.stdout
    assert "3 were done before" in result.stdout
    assert table.read_bytes() == before
    assert figure.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("kept", [1, 14, 100])
def test_a_header_that_was_cut_short_is_written_again(project: Path, model: Path, kept: int) -> None:
    run("src/extract_features.py", "--model", model, cwd=project)
    table = project / "mask_coefficients.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:kept])
    assert run("src/extract_features.py", "--model", model, cwd=project).returncode == 0
    assert table.read_bytes() == whole


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_row_that_was_cut_short_is_done_again(project: Path, model: Path, cut: int) -> None:
    run("src/extract_features.py", "--model", model, cwd=project)
    table = project / "mask_coefficients.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:-cut])
    assert run("src/extract_features.py", "--model", model, cwd=project).returncode == 0
    assert table.read_bytes() == whole


def test_blank_lines_are_passed_over(project: Path, model: Path) -> None:
    run("src/extract_features.py", "--model", model, cwd=project)
    table = project / "mask_coefficients.csv"
    table.write_bytes(table.read_bytes() + b"\n\n")
    before = table.read_bytes()
    assert run("src/extract_features.py", "--model", model, cwd=project).returncode == 0
    assert table.read_bytes() == before


def test_another_model_is_not_mixed_in(project: Path, model: Path) -> None:
    run("src/extract_features.py", "--model", model, cwd=project)
    before = (project / "mask_coefficients.csv").read_bytes()
    other = Tiny(prototypes=32, classes=4).save(project / "other.onnx")
    result = run("src/extract_features.py", "--model", other, cwd=project)
    assert result.returncode == 1
    assert "rows of another model" in result.stderr
    fewer = Tiny(prototypes=8).save(project / "fewer.onnx")
    result = run("src/extract_features.py", "--model", fewer, cwd=project)
    assert result.returncode == 1
    assert "has other columns" in result.stderr
    assert (project / "mask_coefficients.csv").read_bytes() == before


@pytest.mark.parametrize("text", ["name,value\na,1\nb,2", "name,value", "image_name,type,mask_1\n"])
def test_a_file_of_something_else_is_left_alone(project: Path, model: Path, text: str) -> None:
    (project / "other.csv").write_text(text)
    result = run("src/extract_features.py", "--model", model, "--csv_filename", "other.csv", cwd=project)
    assert result.returncode == 1
    assert "has other columns" in result.stderr
    assert (project / "other.csv").read_text() == text


def test_images_that_differ_only_in_the_suffix_keep_figures_apart(project: Path, model: Path) -> None:
    cv2.imwrite(str(project / "data" / "a.jpg"), cv2.imread(str(project / "data" / "b.png")))
    (project / "data" / "more" / "a.png").rename(project / "data" / "a.png.png")
    result = run("src/extract_features.py", "--model", model, cwd=project)
    assert result.returncode == 0, result.stderr
    assert "a.png: has the name of a.jpg; its figure is a.png*.png" in result.stdout
    assert "a.png.png: has the name of a.png; its figure is a.png.png*.png" in result.stdout
    folder = project / "visualizations"
    figures = {p.name: p.read_bytes() for p in folder.glob("*.png")}
    assert set(figures) == {"a.png", "a.png.png", "a.png.png.png", "b.png"}
    cv2.imwrite(str(project / "data" / "a.bmp"), cv2.imread(str(project / "data" / "b.png")))
    result = run("src/extract_features.py", "--model", model, cwd=project)
    assert "a.bmp: has the name of a.jpg; its figure is a.bmp*.png" in result.stdout
    assert "a.png: has the name" not in result.stdout  # it is done
    assert {p.name: p.read_bytes() for p in folder.glob("*.png") if p.name != "a.bmp.png"} == figures
    assert (folder / "a.bmp.png").exists()


@pytest.mark.parametrize("other", ["A.jpg", "more/b.jpg"])
def test_names_are_told_apart_on_every_file_system_and_by_folder(project: Path, model: Path, other: str) -> None:
    cv2.imwrite(str(project / "data" / other), cv2.imread(str(project / "data" / "b.png")))
    result = run("extract_specific_feature.py", "--model", model, cwd=project)
    assert result.returncode == 0, result.stderr
    figures = {str(p.relative_to(project / "visualizations")) for p in (project / "visualizations").rglob("*.png")}
    extra = {"A.jpg": "a.png_mask1.png", "more/b.jpg": "more/b_mask1.png"}[other]
    assert figures == {"A_mask1.png" if other == "A.jpg" else "a_mask1.png", "b_mask1.png", "more/a_mask1.png", extra}
    assert len(rows_of(project / "mask_coefficient.csv")) == 4


def test_figures_are_no_input_of_the_next_run(project: Path, model: Path) -> None:
    for _ in range(2):
        assert run("src/extract_features.py", "--model", model, "--images_folder", ".", cwd=project).returncode == 0
    assert len(rows_of(project / "mask_coefficients.csv")) == 3


def test_folders_and_names_are_options(project: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_drawing(monkeypatch)
    (project / "data").rename(project / "photos here")
    result = run(
        "src/extract_features.py",
        *("--model", model, "--images_folder", "photos here", "--save_folder", "out", "--csv_filename", "x/y.csv"),
        cwd=project,
    )
    assert result.returncode == 0, result.stderr
    assert len(rows_of(project / "x" / "y.csv")) == 3
    result = run("src/generate_visualizations.py", "--csv_filename", "x/y.csv", "--save_folder", "v", cwd=project)
    assert result.returncode == 0, result.stderr
    assert {p.name for p in (project / "v").iterdir()} == {
        "mask_coefficients_histograms.png",
        "mask_coefficients_heatmap.png",
    }


def test_generate_visualizations(project: Path, model: Path) -> None:
    result = run("src/generate_visualizations.py", cwd=project)
    assert result.returncode == 1
    assert "run extract_features first" in result.stderr
    run("src/extract_features.py", "--model", model, cwd=project)
    result = run("src/generate_visualizations.py", cwd=project)
    assert result.returncode == 0, result.stderr
    for name in ("mask_coefficients_histograms.png", "mask_coefficients_heatmap.png"):
        assert cv2.imread(str(project / "visualizations" / name)).std() > 5


def test_generate_visualizations_of_a_file_of_the_original(tmp_path: Path) -> None:
    """Only the columns that the original wrote, and one row."""
    header = ",".join(["image_name", "type", *(f"mask_{n}" for n in range(1, 33))])
    row = ",".join(["a.jpg", "All", *(f"{n / 10}" for n in range(32))])
    (tmp_path / "mask_coefficients.csv").write_text(f"{header}\n{row}\n")
    result = run("src/generate_visualizations.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "a correlation needs at least two" in result.stdout
    assert (tmp_path / "visualizations" / "mask_coefficients_histograms.png").exists()
    (tmp_path / "mask_coefficients.csv").write_text(f"{header}\n{row.replace('0.5', 'half')}\n")
    result = run("src/generate_visualizations.py", cwd=tmp_path)
    assert result.returncode == 1
    assert "something else than a number" in result.stderr


@pytest.mark.parametrize("script", ["extract_specific_feature.py", "src/extract_specific_feature.py"])
def test_extract_specific_feature(project: Path, model: Path, script: str) -> None:
    result = run(
        script,
        *("--model", model, "--images_folder", "data", "--save_folder", "visualizations"),
        *("--csv_filename", "mask_coefficient_31.csv", "--coefficient_index", "31"),
        cwd=project,
    )
    assert result.returncode == 0, result.stderr
    rows = rows_of(project / "mask_coefficient_31.csv")
    assert [row["image_name"] for row in rows] == ["a.png", "b.png", "more/a.png"]
    prediction = maskprism.load(model).predict(project / "data" / "b.png")
    expected = prediction.coefficients[int(np.argmax(prediction.scores)), 31]
    assert np.float32(rows[1]["mask_coefficient_31"]) == expected
    assert (project / "visualizations" / "more" / "a_mask32.png").exists()


def test_index_out_of_range(project: Path, model: Path) -> None:
    for index in (32, -1):
        result = run("extract_specific_feature.py", "--model", model, f"--coefficient_index={index}", cwd=project)
        assert result.returncode == 1
        message = f"coefficient index {index} is out of range: the model has 32 prototypes (0..31)"
        assert message in result.stderr
        assert "Traceback" not in result.stderr


def test_no_detection_is_told(project: Path, model: Path) -> None:
    result = run("src/extract_features.py", "--model", model, "--conf", "0.99", cwd=project)
    assert result.returncode == 0
    assert "a.png: no instance above 0.99; skipped" in result.stdout
    assert "3 without an instance" in result.stdout


@pytest.mark.usefixtures("undrawn")
def test_defaults_are_the_bundled_model_and_sample_scenes(tmp_path: Path) -> None:
    """The commands of the original README, word for word, in an empty folder."""
    result = run("src/extract_features.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "data: held no images; 8 sample scenes are drawn there" in result.stdout
    assert "NO --model IS GIVEN: the bundled demo model is used" in result.stdout
    assert [row["image_name"] for row in rows_of(tmp_path / "mask_coefficients.csv")] == [
        f"scene_{number}.png" for number in range(8)
    ]
    assert run("src/generate_visualizations.py", cwd=tmp_path).returncode == 0
    result = run("extract_specific_feature.py", "--coefficient_index", "31", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "held no images" not in result.stdout
    assert len(rows_of(tmp_path / "mask_coefficient.csv")) == 8


def test_mistakes_are_told(project: Path, model: Path) -> None:
    for arguments, text in (
        (("--model", project / "missing.pt"), "there is no such model file"),
        (("--model", model, "--images_folder", "nowhere"), "there is no such file or folder"),
    ):
        result = run("src/extract_features.py", *arguments, cwd=project)
        assert result.returncode == 1
        assert text in result.stderr
        assert "Traceback" not in result.stderr
    for picture in (project / "data").rglob("*.png"):
        picture.write_bytes(b"")
    result = run("src/extract_features.py", "--model", model, cwd=project)
    assert result.returncode == 1
    assert "3 failed" in result.stdout
