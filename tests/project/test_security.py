"""SECURITY.md: every sentence and every row of it names the tests that hold it, or why no test can."""

from __future__ import annotations

import os
import pickle
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

import maskprism
from helpers.in_process import command
from helpers.tiny_models import Tiny
from maskprism import Prediction
from maskprism.analysis.prototypes.basis import CanonicalBasis
from maskprism.core.archive import MAX_BYTES as MAX_ARRAY_BYTES
from maskprism.core.decoding.outputs import MAX_STACK_BYTES
from maskprism.datasets import open_dataset
from maskprism.datasets.yolo import MAX_LABEL_BYTES
from maskprism.errors import InputError, MaskprismError
from maskprism.io.images import MAX_PIXELS
from maskprism.io.sources import MAX_LIST_BYTES, open_source
from maskprism.io.untrusted import MAX_YAML_BYTES
from maskprism.models.correction import MAX_BYTES as MAX_CORRECTION_BYTES
from maskprism.models.correction import Correction
from maskprism.models.metadata import MAX_SIDE
from maskprism.models.names import read_names
from maskprism.reports.index.pages import MOST_BYTES as MAX_RESULT_BYTES
from maskprism.reports.index.pages import read_table
from maskprism.server import Limits
from maskprism.tables.extraction import extract

TESTS = next(folder for folder in Path(__file__).parents if folder.name == "tests")
POLICY = (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")

CLAIMS: dict[str, str | list[str]] = yaml.safe_load(
    Path(__file__).with_name("security_claims.yaml").read_text(encoding="utf-8")
)
"""For every claim the tests that hold it, or why no test can."""


def claims_of(markdown: str) -> list[str]:
    """The sentences and the rows of tables of a page, without headings, emphasis and the addresses of links."""
    found = []
    for block in re.split(r"\n\s*\n", markdown.strip()):
        if block.startswith("#"):
            continue
        if block.startswith("|"):
            found += [" | ".join(map(str.strip, row.strip("| ").split(" | "))) for row in block.splitlines()[2:]]
            continue
        for item in re.split(r"\n(?=- )", block):
            text = " ".join(item.removeprefix("- ").split())
            found += re.split(r"(?<=[.:]) (?=[A-Zm*])", text)
    return [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", claim).replace("**", "").replace("`", "") for claim in found]


def test_every_claim_names_its_tests() -> None:
    claims = claims_of(POLICY)
    assert len(claims) == len(set(claims))
    assert [claim for claim in claims if claim not in CLAIMS] == [], "new or changed: which test holds it?"
    assert [claim for claim in CLAIMS if claim not in claims] == [], "no longer in SECURITY.md"


def test_every_test_that_is_named_exists() -> None:
    files = [path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py")]
    written = set(re.findall(r"^(?:async )?def (test_\w+)\(", "\n".join(files), re.MULTILINE))
    named = {test for tests in CLAIMS.values() if isinstance(tests, list) for test in tests}
    assert named - written == set()


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"{MAX_PIXELS // 1_000_000} million pixels",
        f"{MAX_SIDE} pixels, and {MAX_SIDE} x {MAX_SIDE} pixels",
        f"a file of class names | {MAX_YAML_BYTES >> 20} MB",
        f"a label file | {MAX_LABEL_BYTES >> 20} MB",
        f"a list of images | {MAX_LIST_BYTES >> 20} MB",
        f"a correction, and a JSON or CSV file of results | {MAX_CORRECTION_BYTES >> 20} MB",
        f"a correction, and a JSON or CSV file of results | {MAX_RESULT_BYTES >> 20} MB",
        f"the arrays of one stored prediction | {MAX_ARRAY_BYTES >> 30} GB",
        f"in one array | {MAX_STACK_BYTES >> 30} GB",
        f"{Limits().upload_bytes >> 20} MB, decoded only after",
        f"a deadline of {Limits().upload_s:.0f} s",
    ],
)
def test_bounds_in_the_security_policy_are_those_of_the_code(text: str) -> None:
    assert text in POLICY


@pytest.mark.parametrize(
    ("read", "name", "limit"),
    [
        (read_names, "names.yaml", MAX_YAML_BYTES),
        (read_names, "names.txt", MAX_YAML_BYTES),
        (open_dataset, "data.yaml", MAX_YAML_BYTES),
        (open_source, "images.txt", MAX_LIST_BYTES),
        (Correction.read, "x.correction.json", MAX_CORRECTION_BYTES),
        (read_table, "prototypes.csv", MAX_RESULT_BYTES),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_beyond_their_bound_are_not_read(
    read: Callable[[Path], Any], name: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / name
    file.touch()
    os.truncate(file, limit + 1)  # without a byte on the disk
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(MaskprismError, match=rf"{name}: has .* MB; expected at most {limit >> 20} MB"):
        read(file)


def test_metadata_of_a_litert_file_is_bounded(tmp_path: Path) -> None:
    from maskprism.models.runtimes.litert import _metadata

    for padding, known in ((0, True), (1 << 20, False)):
        path = tmp_path / f"{padding}.tflite"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("metadata.json", '{"stride": 32}' + " " * padding)
        assert ("stride" in _metadata(path)) == known


# --- what files may do ----------------------------------------------------------------------------


class Runs:
    """Unpickled, it makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.made),)


@pytest.mark.parametrize("read", [CanonicalBasis.load, Prediction.load], ids=["basis", "prediction"])
def test_a_pickle_in_a_file_of_arrays_is_not_opened(read: Callable[[Path], Any], tmp_path: Path) -> None:
    made = tmp_path / "made"
    hostile = np.array([Runs(made)], dtype=object)
    names = ("region", "model_sha256", "matrix", "inverse", "energies", "about", "scores_0")
    np.savez(tmp_path / "x.npz", allow_pickle=True, **dict.fromkeys(names, hostile))
    (tmp_path / "y.npz").write_bytes(pickle.dumps(Runs(made)))
    for file in (tmp_path / "x.npz", tmp_path / "y.npz"):
        with pytest.raises(InputError):
            read(file)
    assert not made.exists()
    np.load(tmp_path / "y.npz", allow_pickle=True)
    assert made.exists()  # it would have been


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for tag in ("!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"):
        text = f"path: .\nval: images\nnames: {tag} ['{made}']\n"
        for name, read in (("data.yaml", open_dataset), ("names.yaml", read_names)):
            (tmp_path / name).write_text(text, encoding="utf-8")
            with pytest.raises(InputError, match="cannot be read as YAML"):
                read(tmp_path / name)
    assert not made.exists()


def test_every_writer_of_csv_guards_text() -> None:
    package = Path(maskprism.__file__).parent
    unguarded = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"write_csv|CSVWriter|csv\.writer|DictWriter", text := path.read_text(encoding="utf-8"))
        and "guarded" not in text
    }
    assert unguarded == {"cli/original/__init__.py", "integrations/training.py"}  # as the original; and numbers alone


def test_a_search_writes_no_file(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    model = maskprism.load(Tiny().save(tmp_path / "tiny.onnx"))
    cv2.imwrite(str(tmp_path / "a.png"), image)
    extract(tmp_path / "a.png", model, tmp_path / "t.parquet")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = command("search", tmp_path / "t.parquet", "--like", "a.png#0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# --- who is spoken to -----------------------------------------------------------------------------


def test_libraries_are_imported_after_telemetry_is_off() -> None:
    code = (
        "import os, sys, maskprism\n"
        "told = {'onnxruntime', 'ray', 'transformers', 'huggingface_hub', 'ultralytics', 'openvino'}\n"
        "print(*told & {*sys.modules})\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['RAY_USAGE_STATS_ENABLED'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["", "1 0"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of this machine")
@pytest.mark.parametrize("options", [[], ["--host", "0.0.0.0"]], ids=["as it is", "on all addresses"])
def test_the_server_listens_on_this_machine_alone(options: list[str], tmp_path: Path) -> None:
    """Of one on all addresses 127.0.0.2 is another."""
    pytest.importorskip("uvicorn")
    (tmp_path / "index.html").write_text("<!DOCTYPE html>", encoding="utf-8")
    line = [sys.executable, "-m", "maskprism", "serve", "--static", str(tmp_path), "--port", "0", *options]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.readline()
        port = re.search(r":(\d+)/", printed)
        assert port, printed
        try:
            reached = []
            for host in ("127.0.0.1", "127.0.0.2"):
                with socket.socket() as connection:
                    reached.append(connection.connect_ex((host, int(port[1]))) == 0)
        finally:
            process.terminate()
    assert reached == [True, bool(options)]
