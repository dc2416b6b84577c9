"""What --out takes: nothing is replaced without --overwrite, and no half file is left where the disk is full."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.in_process import command as run
from helpers.tiny_models import Tiny
from maskprism._common.files import write_atomically, written_together
from maskprism.datasets.scenes import write_dataset
from maskprism.errors import MaskprismError
from maskprism.models import SAMPLE_MODEL

FOLDERS = {
    "explain": "explain {photos} --model {model} --out {out}",
    "prototypes": "prototypes {photos} --model {model} --cards 0 --moved 0 --out {out}",
    "basis": "basis {photos} --model {model} --pictures 0 --out {out}",
    "diagnose": "diagnose {data} --model {model} --limit 1 --out {out}",
    "labels": "labels {data} --model {model} --limit 1 --out {out}",
    "compare": "compare {model} {model} --images {photos} --out {out}",
    "atlas": "atlas {table} --out {out}",
    "demo": "demo --out {out}",
}
FILES = {
    "page": ("page {photos} --model {model} --out {out}", ".html"),
    "filmstrip": ("filmstrip {model} --image {photo} --out {out}", ".png"),
    "reduce": ("reduce {model} --images {photos} --keep 8 --out {out}", ".onnx"),
    "report": ("report {results} --out {out}", ".html"),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("given")
    data = write_dataset(folder / "scenes", 2, seed=3, validation_share=1.0)
    photos = folder / "scenes" / "images" / "val"
    rows = "".join(f"{i % 9}.png,{i},{i % 7}.5,{i % 5}.25\n" for i in range(40))
    (folder / "t.csv").write_text(f"image,instance,mask_1,mask_2\n{rows}", encoding="utf-8")
    return {
        "model": SAMPLE_MODEL,
        "data": data,
        "photos": photos,
        "photo": min(photos.iterdir()),
        "table": folder / "t.csv",
        "results": folder,
    }


def line(text: str, given: dict[str, Any], out: Path) -> list[str]:
    return [part.format(out=out, **given) for part in text.split()]


@pytest.mark.parametrize("command", FOLDERS)
def test_a_folder_with_something_in_it_is_refused_before_any_work(
    command: str, given: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "own.txt").write_text("mine", encoding="utf-8")
    done = run(*line(FOLDERS[command], given, tmp_path))
    assert done.returncode == 1
    assert f"{tmp_path}: exists and is not empty; choose another --out, or give --overwrite" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["own.txt"]
    done = run(*line(FOLDERS[command], given, tmp_path / "own.txt"))
    assert done.returncode == 1
    assert "own.txt: cannot be written (it is a file); expected a folder; choose another --out" in done.stderr


@pytest.mark.parametrize("command", FILES)
def test_a_file_that_is_there_is_refused_before_any_work(command: str, given: dict[str, Any], tmp_path: Path) -> None:
    text, suffix = FILES[command]
    out = tmp_path / f"out{suffix}"
    out.write_text("mine", encoding="utf-8")
    done = run(*line(text, given, out))
    assert (done.returncode, out.read_text(encoding="utf-8")) == (1, "mine")
    assert f"{out}: exists; choose another --out, or give --overwrite" in done.stderr
    done = run(*line(text, given, tmp_path))
    assert f"{tmp_path}: is a folder; expected the name of a file, such as {tmp_path}/NAME{suffix}" in done.stderr
    done = run(*line(text, given, tmp_path / "out"))
    assert f"out: expected a file name ending in {suffix}, such as {out}" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("name", [".", "..", "/", ""])
@pytest.mark.parametrize("command", ["page", "filmstrip", "reduce", "report", "tune"])
def test_a_folder_without_a_name_is_refused_like_any(command: str, name: str, given: dict[str, Any]) -> None:
    text = "tune --model sample --data {data} --out {out}" if command == "tune" else FILES[command][0]
    done = run(*[part.format(**given | {"out": name}) for part in text.split()])
    assert done.returncode == 1
    assert "is a folder; expected the name of a file" in done.stderr


@pytest.mark.usefixtures("undrawn")
def test_explaining_again_leaves_nothing_of_the_run_before(given: dict[str, Any], tmp_path: Path) -> None:
    command = line(FOLDERS["explain"], given, tmp_path / "out")
    assert run(*command, "--instance", "0", "--limit", "1").returncode == 0
    (tmp_path / "out" / "notes.txt").write_text("mine", encoding="utf-8")
    first = set((tmp_path / "out").rglob("00-*"))
    assert run(*command, "--instance", "1", "--limit", "1", "--overwrite").returncode == 0
    assert first
    assert not [path for path in first if path.exists()]
    assert list((tmp_path / "out").rglob("01-*"))
    assert (tmp_path / "out" / "notes.txt").exists()


def test_a_question_without_an_answer_counts_its_picture(given: dict[str, Any], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    command = line(FOLDERS["explain"], given, tmp_path / "out")
    done = run(*command, "--limit", "1", "--at", "0,0")
    assert "0 images" not in done.stdout
    assert "1 picture of 1 image" in done.stdout


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("command", ["atlas", "diagnose", "labels"])
def test_a_full_disk_leaves_no_half_file(
    command: str, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def half(path: Path, data: bytes) -> int:
        if ".html" in path.name:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", half)
    done = run(*line(FOLDERS[command], given, tmp_path / "out"))
    assert done.returncode == 1
    assert ".html: cannot be written (No space left on device)" in done.stderr
    assert not list((tmp_path / "out").iterdir())
    monkeypatch.setattr(Path, "write_bytes", write)
    assert run(*line(FOLDERS[command], given, tmp_path / "out")).returncode == 0


def test_a_missing_out_is_told_as_missing() -> None:
    done = run("explain", "a.png")
    assert done.returncode == 2
    assert "--out is missing; `maskprism explain --help` says what it is" in done.stderr
    assert "--out requires an argument" in run("explain", "a.png", "--out").stderr


def test_results_of_several_files_appear_together(
    given: dict[str, Any], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it writes, `reduce` leaves nothing that it would refuse when it is called again."""
    rename, targets = Path.replace, list[str]()

    def renamed(path: Path, target: Path) -> Path:
        if target.parent == tmp_path and ".partial" not in target.name:
            if not targets:
                assert not [one.name for one in tmp_path.iterdir() if ".partial" not in one.name]
                assert len(list(tmp_path.iterdir())) == 4
            targets.append(target.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", renamed)
    pytest.importorskip("onnx", reason="onnx, which writes the model, is not installed")
    model = Tiny(prototypes=9).save(tmp_path_factory.mktemp("model") / "tiny.onnx")
    assert run(*line(FILES["reduce"][0], {**given, "model": model}, tmp_path / "small.onnx")).returncode == 0
    assert targets == [
        "small.masks.png",
        "small.curve.png",
        "small.json",
        "small.onnx",
        "small.onnx.reduce.manifest.json",
    ]


def test_after_an_error_no_file_of_several_is_there(tmp_path: Path) -> None:
    def write_all(last: Path) -> None:
        with written_together():
            write_atomically(tmp_path / "model", lambda path: write_atomically(path, "nested").read_text())
            write_atomically(tmp_path / "report", "whole")
            write_atomically(last, "more")

    (tmp_path / "folder").mkdir()
    with pytest.raises(MaskprismError, match="folder: cannot be written"):
        write_all(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    write_all(tmp_path / "last")
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "model", "report", "last"}
