"""The installed command, run as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers import in_process
from helpers.in_process import Done, says
from helpers.tiny_models import Tiny
from maskprism import cli
from maskprism.core.decoding import engine
from maskprism.datasets.scenes import draw_scene

COMMAND = [sys.executable, "-m", "maskprism"]
run = in_process.command


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Tiny().save(tmp_path_factory.mktemp("model") / "tiny model ü.onnx")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "sub dir").mkdir()
    for number, name in enumerate(["a.png", "b ü.png", "sub dir/a.png"]):
        picture = cv2.resize(draw_scene(number).image, (160, 120))
        (folder / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return folder


@pytest.mark.parametrize("arguments", [("info",), ("info", "missing.onnx"), ("extrakt",)], ids=lambda given: given[-1])
def test_a_process_of_its_own_says_the_same(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Most tests of commands stay in this process; `python -m maskprism` prints and returns what they see."""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    seen = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (seen.returncode, seen.stdout, seen.stderr)


def test_help_lists_the_commands_and_version() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("info", "explain", "extract", "demo"))
    assert run("--version").stdout.strip() == __import__("maskprism").__version__


def test_info(model: Path) -> None:
    result = run("info", model)
    assert result.returncode == 0, result.stderr
    for text in ("yolov8", "8 of 16 x 16 (stride 4)", "64 x 64", "mask rule", "sha256"):
        assert text in result.stdout
    spec = json.loads(run("info", model, "--json").stdout)
    assert spec["prototypes"] == 8
    assert spec["rule"]["name"] == "ultralytics"


@pytest.mark.parametrize(("value", "reason"), [("1", "MASKPRISM_PURE is set"), ("0", "no C compiler")])
def test_info_tells_why_numpy_decodes_masks(
    value: str, reason: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(engine.PURE, value)
    monkeypatch.setattr(engine, "engine", engine.pure)
    assert re.search(rf"mask decoder +NumPy \(.*{reason}\)", run("info", model).stdout)


def test_info_takes_the_rule_and_layout(model: Path) -> None:
    spec = json.loads(run("info", model, "--rule", "retina", "--layout", "yolov8", "--json").stdout)
    assert spec["rule"]["size"] == "image"
    says(run("info", model, "--rule", "yolov5"), "multiplies coefficients by objectness", "'ultralytics-8.2'")
    says(run("info", model, "--runtime", "ultralytics"), "leave runtime out")
    says(run("info", model, "--device", "cuda:7"), "cuda:7")
    says(run("info", model, "--rule", "sharp"), "there is no mask rule 'sharp'", "retina")
    says(run("info", model, "--layout", "end2end"), "no detections that fit")


def test_explain_writes_every_picture(model: Path, images: Path, tmp_path: Path) -> None:
    result = run("explain", images, "--model", model, "--out", tmp_path / "p q")
    assert result.returncode == 0, result.stderr
    assert "21 pictures of 3 images" in result.stdout
    written = {str(p.relative_to(tmp_path / "p q")) for p in (tmp_path / "p q").rglob("*.png")}
    kinds = ["overview", *(f"00-{kind}" for kind in ("prototypes", "contributions", "contributions-full"))]
    kinds += ["00-assembly", "00-crop", "00-roles"]
    assert written == {f"{name}/{kind}.png" for name in ("a", "b ü", "sub dir/a") for kind in kinds}


@pytest.mark.usefixtures("undrawn")
def test_explain_takes_several_images_and_instances(model: Path, images: Path, tmp_path: Path) -> None:
    images = [images / "a.png", images / "sub dir" / "a.png"]
    result = run("explain", *images, "--model", model, "--out", tmp_path, "--overwrite", "--instance", "all")
    assert result.returncode == 0, result.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"a", "a.png", "explain.manifest.json"}  # same names stay apart
    assert (tmp_path / "a" / "02-crop.png").exists()
    result = run("explain", *images, "--model", model, "--out", tmp_path / "9", "--instance", "9")
    says(result, "instance 9 is out of range: a.png has 3 instances (0..2)", "2 failed")
    assert (tmp_path / "9" / "a" / "overview.png").exists()


@pytest.mark.usefixtures("undrawn")
def test_results_are_no_input_of_the_next_run(model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes((images / "a.png").read_bytes())
    for _ in range(2):
        result = run("explain", ".", "--model", model, "--out", "pictures", "--overwrite", cwd=tmp_path)
        assert "7 pictures of 1 image in" in result.stdout, result.stdout + result.stderr


def test_explain_without_instances_draws_the_overview(model: Path, images: Path, tmp_path: Path) -> None:
    result = run("explain", images / "a.png", "--model", model, "--out", tmp_path, "--overwrite", "--conf", "0.99")
    assert result.returncode == 0
    assert "no instance with a score above 0.99" in result.stderr
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["overview.png"]


def test_one_bad_image_does_not_stop_the_rest(model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.png").write_bytes((images / "a.png").read_bytes())
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    (tmp_path / "in" / "text.jpg").write_text("this is text")
    (tmp_path / "in" / "cut.png").write_bytes((images / "a.png").read_bytes()[:2000])
    result = run("explain", tmp_path / "in", "--model", model, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "7 pictures of 1 image in" in result.stdout
    assert "3 failed" in result.stdout
    for text in (
        "empty.jpg: failed: the file is empty",
        "text.jpg: failed: not an image",
        "cut.png: failed: the image is truncated",
    ):
        assert text in result.stderr
    (tmp_path / "in" / "good.png").unlink()
    line = ("explain", tmp_path / "in", "--model", model, "--out", tmp_path / "out", "--overwrite")
    says(run(*line), "0 pictures of 0 images")


def test_extract_writes_a_table(model: Path, images: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    result = run("extract", images, "--model", model, "--out", table)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 images" in result.stdout
    assert "9 instances" in result.stdout
    header, *rows = csv.reader(table.read_text(encoding="utf-8").splitlines())
    assert header[:7] == ["image", "image_width", "image_height", "instance", "class_id", "class_name", "score"]
    assert header[-8:] == [f"mask_{k}" for k in range(8)]
    assert len(rows) == 9
    again = run("extract", images, "--model", model, "--out", table)
    assert again.returncode == 0
    assert "3 were in the table before" in again.stdout
    mixed = run("extract", images, "--model", model, "--out", table, "--conf", "0.5")
    says(mixed, "conf: 0.25 in the table, 0.5 now", "overwrite")


@pytest.mark.usefixtures("undrawn")
def test_frames_of_a_video_get_folders_alike(model: Path, images: Path, tmp_path: Path) -> None:
    frame = cv2.imread(str(images / "a.png"))
    video = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, frame.shape[1::-1])
    for _ in range(3):
        video.write(frame)
    video.release()
    result = run("explain", tmp_path / "clip.avi", "--model", model, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert {p.name for p in (tmp_path / "out").iterdir() if p.is_dir()} == {f"clip.avi#00000{n}" for n in range(3)}


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently")
def test_ctrl_c_says_how_to_go_on(model: Path, images: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((4000, 6000), np.uint8))
    for number in range(200):  # more than any machine reads before the signal
        (many / f"{number}.png").symlink_to(tmp_path / "large.png")
    process = subprocess.Popen(
        [*COMMAND, "extract", many, "--model", model, "--out", tmp_path / "t.csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "t.csv.parts").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output = "".join(process.communicate(timeout=60))
    assert process.returncode == 130, output
    assert "interrupted; the same command goes on where it stopped" in output
    assert "Traceback" not in output


def test_extract_fails_when_every_image_fails(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"")
    says(run("extract", tmp_path / "in", "--model", model, "--out", tmp_path / "t.parquet"), "a.jpg", "1 failed")
    assert (tmp_path / "t.images.parquet").exists()


@pytest.mark.usefixtures("undrawn")
def test_demo_tells_the_whole_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On fewer scenes than it has for users; CI runs the whole as README says."""
    scenes, pictured = 3, 1
    monkeypatch.setattr("maskprism.cli.sample_story.SCENES", scenes)
    monkeypatch.setattr("maskprism.cli.sample_story.PICTURED", pictured)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "page.html").write_text("of an earlier run")
    result = run("demo", "--out", tmp_path / "demo", "--overwrite")
    assert result.returncode == 0, result.stderr
    shown = result.stdout.split("Where to look first:")[1]
    named = [Path(word.strip(",")) for word in shown.split() if str(tmp_path) in word]
    assert len(named) == 11
    index = (tmp_path / "demo" / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{page}"' in index for page in ("page.html", "diagnosis/report.html", "atlas/atlas.html"))
    assert all(path.exists() for path in named)
    assert len(list((tmp_path / "demo" / "pictures").glob("*/00-assembly.png"))) == pictured
    assert "mask AP" in (tmp_path / "demo" / "diagnosis" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "demo" / "page.html").read_text(encoding="utf-8").count("maskprism-scene-") >= pictured
    assert len(list((tmp_path / "demo" / "scenes" / "labels").rglob("*.txt"))) == scenes
    again = run("demo", "--out", tmp_path / "demo", "--overwrite")
    assert again.returncode == 0
    assert again.stdout == result.stdout
    (tmp_path / "file").write_text("in the way")
    says(run("demo", "--out", tmp_path / "file"), "cannot be written")


@pytest.mark.usefixtures("undrawn")
def test_the_bundled_model_is_named(images: Path, tmp_path: Path) -> None:
    spec = json.loads(run("info", "sample", "--json").stdout)
    assert (spec["name"], spec["layout"], spec["prototypes"]) == ("sample.onnx", "yolov8", 32)
    for line in (
        ("explain", images / "a.png", "--out", tmp_path / "p"),
        ("extract", images, "--out", tmp_path / "t.csv"),
    ):
        says(run(*line), "no model is given")
        result = run(*line, "--model", "sample")
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", ["explain", "extract"])
def test_bad_sources(command: str, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    says(run(command, tmp_path / "missing", "--model", model, "--out", out), "there is no such file or folder")
    (tmp_path / "none").mkdir()
    says(run(command, tmp_path / "none", "--model", model, "--out", out), "none", "no image")
    assert not out.exists()


@pytest.mark.parametrize("command", ["explain", "extract", "info"])
def test_bad_models(command: str, images: Path, tmp_path: Path) -> None:
    def attempt(model: Path) -> Done:
        if command == "info":
            return run("info", model)
        return run(command, images, "--model", model, "--out", tmp_path / "out.csv")

    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"\x08\x07 not a graph")
    says(attempt(corrupt), "corrupt.onnx: ONNX Runtime cannot read this file")
    says(attempt(tmp_path / "missing.onnx"), "there is no such model file")
    says(attempt(Tiny(family="detect").save(tmp_path / "detect.onnx")), "detection model")
    says(attempt(Tiny(family="classify").save(tmp_path / "classify.onnx")), "classification model")
    code = {"names": "__import__('os').system('touch hacked')"}
    says(attempt(Tiny(metadata=code).save(tmp_path / "code.onnx")), "'names' is not a literal")
    assert not Path("hacked").exists()
    (tmp_path / "weights.bin").write_bytes(b"123")
    says(attempt(tmp_path / "weights.bin"), "no runtime reads .bin")


def test_unwritable_output(model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = run("explain", images / "a.png", "--model", model, "--out", tmp_path / "file")
    says(result, "cannot be written")
    says(run("extract", images, "--model", model, "--out", tmp_path / "file" / "t.csv"), "file")
    says(run("extract", images, "--model", model, "--out", tmp_path / "t.xlsx"), ".csv", ".parquet")


def test_odd_images(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pictures = {
        "one.png": rng.integers(0, 255, (1, 1, 3), dtype=np.uint8),
        "long.png": rng.integers(0, 255, (10, 30000, 3), dtype=np.uint8),
        "grey.png": rng.integers(0, 255, (40, 60), dtype=np.uint8),
        "alpha.png": rng.integers(0, 255, (40, 60, 4), dtype=np.uint8),
        "deep.png": rng.integers(0, 65535, (40, 60, 3), dtype=np.uint16),
    }
    for name, picture in pictures.items():
        cv2.imwrite(str(folder / name), picture)
    result = run("explain", folder, "--model", model, "--out", tmp_path / "out", "--conf", "0.1")
    assert result.returncode == 0, result.stderr
    assert "35 pictures of 5 images" in result.stdout
    result = run("extract", folder, "--model", model, "--out", tmp_path / "t.csv", "--conf", "0.1")
    assert result.returncode == 0, result.stderr


def test_mistakes_in_options_are_told() -> None:
    says(run("explain", "a.jpg"), "--out", code=2)
    says(run("extract", "a", "--model", "m.onnx", "--out", "t.csv", "--precision", "int4"), "precision", code=2)
    says(run("extrakt"), "extrakt", code=2)


def test_the_reference_is_up_to_date() -> None:
    root = Path(__file__).resolve().parents[2]
    generated = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, 'utils'); import make_docs; print(make_docs.cli_reference(), end='')",
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (root / "docs" / "cli.md").read_text(encoding="utf-8") == generated, "run: make docs"
    options = set(re.findall(r"`(--[a-z-]+)", generated))
    assert {"--model", "--out", "--conf", "--instance", "--overwrite", "--precision"} <= options


def test_main_is_the_installed_script() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="maskprism")
    assert script.load() is cli.main


def test_light_commands_do_not_load_heavy_libraries() -> None:
    heavy = ("matplotlib", "onnxruntime", "pyarrow", "cv2", "PIL", "numpy")
    code = f"import sys, maskprism.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
