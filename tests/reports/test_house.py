"""One address for what was computed: which results are linked, and which get a page."""

from __future__ import annotations

import html
import json
import math
import os
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote_to_bytes

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import in_process
from helpers.tiny_models import Tiny
from helpers.tuned import with_little_effort
from helpers.undrawn import without_drawing
from maskprism.datasets.scenes import write_dataset
from maskprism.errors import MaskprismError, ModelError
from maskprism.reports.index import pages
from maskprism.reports.index.pages import Result, page_of
from maskprism.reports.manifest import (
    Number,
    PictureFile,
    ResultManifest,
    TableFile,
    Verdict,
    file_url,
    first_masks,
    manifest_path,
    read_manifest,
    write_manifest,
)

run = partial(in_process.command)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands write over three scenes."""
    folder = tmp_path_factory.mktemp("house ü")
    write_dataset(folder / "data", 3, validation_share=1.0)
    with pytest.MonkeyPatch.context() as patch:
        without_drawing(patch)
        for line in (
            "basis data/images --model sample --out results/basis --pictures 1",
            "prototypes data/images --model sample --out results/prototypes --moved 0 --cards 0 3",
            "diagnose data/data.yaml --model sample --out results/diagnosis --worst 2",
            "page data/images --model sample --out results/page.html",
            "extract data/images --model sample --out results/table.csv",
            "predict data/images --model sample --out results/masks --format coco",
            "atlas results/table.csv --out results/atlas",
            "compare sample sample --images data/images --out results/compare",
            "explain data/images --model sample --out results/explain --limit 1",
        ):
            done = run(*line.split(), cwd=folder)
            assert done.returncode == 0, done.stderr
    return folder / "results"


def links(page: Path) -> list[Path]:
    found = re.findall(r'href="(?!data:)([^"#]+)"', page.read_text(encoding="utf-8"))
    return [Path(os.path.normpath(page.parent / os.fsdecode(unquote_to_bytes(html.unescape(link))))) for link in found]


def test_everything_is_linked_and_leads_back(results: Path) -> None:
    done = run("report", "results", "--out", "results/index.html", cwd=results.parent)
    assert done.returncode == 0, done.stderr
    assert "and 8 pages that lead back to it" in done.stdout
    assert done.stderr == ""
    index = results / "index.html"
    expected = {
        results / "page.html",
        results / "table.csv",
        results / "masks" / "results.json",
        results / "diagnosis" / "report.html",
        *(results / name / f"{name}.html" for name in ("atlas", "basis", "compare", "explain", "prototypes")),
    }
    assert set(links(index)) == expected
    for page in expected - {results / "table.csv", results / "masks" / "results.json"} | {
        results / "atlas" / "map.html"
    }:
        assert index in links(page)
    assert results / "atlas" / "atlas.html" in links(results / "atlas" / "map.html")
    text = index.read_text(encoding="utf-8")
    said = json.loads((results / "basis" / "basis.json").read_text())
    assert f"effective rank of contributions <b>{said['effective_rank']['contributions']:.1f}</b>" in text
    said = json.loads((results / "diagnosis" / "summary.json").read_text())
    assert f"mask mAP50-95 <b>{said['average_precision']['predict']['ap']:.3f}</b>" in text
    assert "PASS</strong>the same within the tolerance (exit code 0)" in text
    cards = re.findall(r"<li>.*?</li>", text)
    assert len(cards) == len(expected)
    assert all(card.count('class="thumbnail"') == 1 for card in cards)
    assert all(re.search(r'<img[^>]* src="data:image/webp;base64,', card) for card in cards)
    assert text.count("sample.onnx") == 11  # the models, of which two are compared; and both titles
    again = run("report", "results", "--out", "results/index.html", "--overwrite", cwd=results.parent)
    assert again.stdout == done.stdout
    assert (results / "index.html").read_text(encoding="utf-8") == text  # it does not list itself


def test_pages_hold_the_pictures_and_tables_of_their_folder(results: Path) -> None:
    run("report", "results", "--out", "elsewhere/all.html", cwd=results.parent)
    elsewhere = results.parent / "elsewhere" / "all.html"
    found = links(results / "diagnosis" / "report.html")
    assert elsewhere in found  # in place of the index before
    assert results / "index.html" not in found
    for name in ("basis", "compare", "prototypes"):
        folder = results / name
        text = (folder / f"{name}.html").read_text(encoding="utf-8")
        assert text.count("data:image/png;base64,") == len(list(folder.glob("*.png"))) > 0
        for table in folder.glob("*.csv"):
            assert f'<section id="table-{table.stem}">' in text
            rows = len(table.read_text(encoding="utf-8").splitlines()) - 1
            (part,) = re.findall(rf'<section id="table-{table.stem}">(.*?)</section>', text, re.DOTALL)
            assert part.count("<tr>") == rows + 1
        assert results.parent / "elsewhere" / "all.html" in links(folder / f"{name}.html")


# --- manifests


def test_a_model_that_cannot_be_opened_again_costs_the_thumbnail_alone() -> None:
    def fail() -> NoReturn:
        raise ModelError("there is no such device here")

    assert first_masks(fail) == ""


ANYTHING = {
    "command": "basis",
    "about": "how many of the prototypes are used",
    "page": "",
    "models": ["a.onnx"],
    "findings": ["Dead: 1 2."],
}


def write(folder: Path, **fields: object) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (path,) = write_manifest(folder, ResultManifest(**{**ANYTHING, **fields}))  # type: ignore[arg-type]
    return path


def test_names_of_files_are_text(tmp_path: Path) -> None:
    folder, bad = tmp_path / "<b>x&amp;\"'", "<script>x</script>"
    write(
        folder,
        about=bad,
        title=bad,
        models=[bad],
        numbers=[Number(bad, 1.5)],
        findings=[bad],
        pictures=[PictureFile("spectrum.png", bad)],
        tables=[TableFile("prototypes.csv", bad, headings={"value": bad})],
        verdict=Verdict("fail", bad),
    )
    cv2.imwrite(str(folder / "spectrum.png"), np.zeros((4, 4, 3), np.uint8))
    (folder / "prototypes.csv").write_text("<script>z,value\n<script>,-0.123456\n")
    assert run("report", ".", "--out", "index.html", cwd=tmp_path).returncode == 0
    for page in (tmp_path / "index.html", folder / "basis.html"):
        text = page.read_text(encoding="utf-8")
        assert "<b>x" not in text
        assert len(re.findall("<script>", text)) == 2  # of the colours and of the report
    assert links(tmp_path / "index.html") == [folder / "basis.html"]
    assert folder / "spectrum.png" in links(folder / "basis.html")
    assert "−0.1235" in (folder / "basis.html").read_text(encoding="utf-8")


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    def fails(*arguments: str) -> str:
        done = run("report", *arguments, cwd=tmp_path)
        assert done.returncode == 1
        return done.stderr

    assert "missing: is not a folder; expected one with results" in fails("missing", "--out", "i.html")
    (tmp_path / "empty").mkdir()
    assert "empty: holds no result with a manifest" in fails("empty", "--out", "i.html")
    assert "is a folder; expected the name of a file" in fails("empty", "--out", "empty")
    manifest = tmp_path / "empty" / "basis.manifest.json"
    for text in ("{", "[1, 2]", "{}", '{"a":' + "[" * 200_000, '{"command": "basis", "about": "", "format": 2}'):
        manifest.write_text(text)
        assert "basis.manifest.json: " in (told := fails("empty", "--out", "i.html"))
        assert "expected the manifest of a result, format 1; run the command that wrote it again" in told
    assert not (tmp_path / "i.html").exists()


def test_a_damaged_manifest_costs_its_own_result_alone(tmp_path: Path) -> None:
    write(tmp_path / "basis")
    (tmp_path / "damaged.manifest.json").write_text("{")
    done = run("report", ".", "--out", "index.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "damaged.manifest.json: " in done.stderr
    shown = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "damaged.manifest.json" in shown
    assert tmp_path / "basis" / "basis.html" in links(tmp_path / "index.html")


def test_files_that_are_missing_or_damaged_are_noted(tmp_path: Path) -> None:
    """In the index and on the page of their result, which shows all others."""
    damaged = {
        "gone.png": None,
        "cut.png": b"\x89PNG\r\n\x1a\n",
        "gone.csv": None,
        "bytes.csv": b"a,b\n\xff\xfe,\x00",
        "ragged.csv": b"prototype,rank\n1\n",
        "other.csv": b"garbage\n",
        "empty.csv": b"",
    }
    for name, data in damaged.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
    cv2.imwrite(str(tmp_path / "whole.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "whole.csv").write_text("prototype,rank\n7,8\n")
    write(
        tmp_path,
        pictures=[PictureFile(name, name) for name in ("whole.png", *damaged) if name.endswith("png")],
        tables=[TableFile(name, name, "-rank") for name in ("whole.csv", *damaged) if name.endswith("csv")],
    )
    write(tmp_path, command="labels", page="labels.html")
    (tmp_path / "labels.html").write_bytes(b"")
    done = run("report", ".", "--out", "index.html", "--json", cwd=tmp_path)
    assert done.returncode == 0
    notes = json.loads(done.stdout)["notes"]
    expected = {
        "gone.png": "is not there",
        "cut.png": "is no PNG picture any more",
        "gone.csv": "is not there",
        "bytes.csv": "cannot be read as CSV",
        "ragged.csv": "has rows that are longer or shorter than its headings",
        "other.csv": "has none of the columns that were written",
        "empty.csv": "has none of the columns that were written",
        "labels.html": "is no page of maskprism any more",
    }
    assert len(notes) == len(expected)
    assert all(any(note.startswith(f"{name}: {what}") for note in notes) for name, what in expected.items())
    page = html.unescape((tmp_path / "basis.html").read_text(encoding="utf-8"))
    assert all(note in page for note in notes if "labels" not in note)
    assert page.count("<figure") == page.count("<table") == 1
    assert "garbage" not in page
    index = html.unescape((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert all(note in index for note in notes)


@pytest.mark.parametrize("url", ["../secret.png", "/etc/passwd", "..", "", "a/../../secret.png", "%2e%2e/secret.png"])
def test_a_manifest_names_files_of_its_own_folder_only(url: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    for fields in ({"pictures": [PictureFile(url, "x")]}, {"tables": [TableFile(url, "x")]}, {"page": url or "."}):
        write(tmp_path / "theirs", **fields)
        done = run("report", "theirs", "--out", "index.html", cwd=tmp_path)
        assert done.returncode == 1
        assert "expected a file in its own folder" in done.stderr
    (tmp_path / "theirs" / "link.png").symlink_to(tmp_path / "secret.png")
    write(tmp_path / "theirs", pictures=[PictureFile("link.png", "x")])
    assert "own folder" in run("report", "theirs", "--out", "index.html", cwd=tmp_path).stderr


def test_results_without_a_manifest_are_named(tmp_path: Path, results: Path) -> None:
    shutil.copytree(results, tmp_path / "results")
    for name in ("diagnosis/diagnose.manifest.json", "page.html.page.manifest.json"):
        (tmp_path / "results" / name).unlink()
    (tmp_path / "results" / "atlas" / "atlas.html").unlink()
    (tmp_path / "results" / "atlas" / "map.html").rename(tmp_path / "results" / "map.html")
    done = run("report", "results", "--out", "index.html", "--json", cwd=tmp_path)
    assert done.returncode == 0
    told = json.loads(done.stdout)["notes"]
    assert {f"note: {note}" for note in told} <= set(done.stderr.splitlines())
    assert set(told) == {
        f"{Path('results/atlas/atlas.html')}: is not there; run the command that wrote it again",
        f"{Path('results/diagnosis/report.html')}: has no manifest; run the command that wrote it again",
        f"{Path('results/page.html')}: has no manifest; run the command that wrote it again",
    }
    text = html.unescape((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert all(note in text for note in told)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "manifest.json").write_text("[]")
    (tmp_path / "theirs" / "report.html").write_text('<p class="kicker">maskprism diagnose</p>')
    write(tmp_path / "ours", numbers=[Number("images", None, ",")])
    (tmp_path / "loop").symlink_to(tmp_path)
    assert run("report", ".", "--out", "index.html", cwd=tmp_path).returncode == 0
    assert links(tmp_path / "index.html") == [tmp_path / "ours" / "basis.html"]
    assert "href" not in (tmp_path / "theirs" / "report.html").read_text()


def test_no_file_is_lost(tmp_path: Path, results: Path) -> None:
    """Two results may share a folder; what is not ours is never written over, nor is a page by the index."""
    both = tmp_path / "both"
    shutil.copytree(results / "diagnosis", both)
    for file in (results / "basis").iterdir():
        if file.suffix != ".html":
            shutil.copy(file, both)
    assert run("report", "both", "--out", "index.html", cwd=tmp_path).returncode == 0
    assert set(links(tmp_path / "index.html")) == {both / "report.html", both / "basis.html"}
    before = (both / "report.html").read_bytes()
    for name in ("report.html", "basis.html"):
        done = run("report", "both", "--out", f"both/{name}", "--overwrite", cwd=tmp_path)
        assert f"{name}: is the page of a result; expected another name" in done.stderr
    victim = tmp_path / "notes.txt"
    victim.write_text("mine")
    for theirs in (lambda path: path.write_text("mine"), lambda path: path.symlink_to(victim)):
        (both / "basis.html").unlink()
        theirs(both / "basis.html")
        done = run("report", "both", "--out", "index.html", "--overwrite", cwd=tmp_path)
        assert "basis.html: was not written by maskprism; move it" in done.stderr
        assert (both / "basis.html").read_text() == victim.read_text() == "mine"
    assert (both / "report.html").read_bytes() == before
    assert not list(tmp_path.rglob("*.partial*"))


@pytest.mark.parametrize("name", [b"a#b?c%d$e", b"a:b", "ü 𝕏".encode(), b"\xff\xfe"])
def test_any_name_of_a_folder_is_linked(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((4, 4, 3), np.uint8))
    for stem in ("spectrum", f"prototypes-{os.fsdecode(name)}"):
        shutil.copy(tmp_path / "one.png", folder / f"{stem}.png")
    write(folder, pictures=[PictureFile(file_url(path, folder), "x") for path in sorted(folder.glob("*.png"))])
    assert run("report", ".", "--out", "index.html", cwd=tmp_path).returncode == 0
    assert links(tmp_path / "index.html") == [folder / "basis.html"]
    expected = {tmp_path / "index.html", folder / "spectrum.png", folder / f"prototypes-{os.fsdecode(name)}.png"}
    assert set(links(folder / "basis.html")) == expected


def test_tables_show_first_what_matters(tmp_path: Path) -> None:
    write(
        tmp_path,
        command="compare",
        about="how two models differ",
        models=["x.onnx", "y.pt"],
        numbers=[Number("unmatched", 0.25, ".1%")],
        tables=[
            TableFile("instances.csv", "rows", "mask_iou", {"instance_a": "instance in A", "mask_iou": "mask IoU"})
        ],
    )
    (tmp_path / "instances.csv").write_text(
        "image,instance_a,class_a,mask_iou,own_canvas_iou\nfar.jpg,0,car,0.91234567,\nnone.jpg,1,cow,,\nnear.jpg,2,,0.5,\n"
    )
    assert run("report", ".", "--out", "index.html", cwd=tmp_path).returncode == 0
    text = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert "A x.onnx · B y.pt · How two models differ" in text
    assert "<dt>unmatched</dt><dd>25.0%</dd>" in text
    (part,) = re.findall(r'<section id="table-instances">(.*?)</section>', text, re.DOTALL)
    headings = re.findall(r"<th scope=\"col\"( class=text)?><button type=\"button\">([^<]*)<", part)
    assert headings == [
        (" class=text", "image"),
        ("", "instance in A"),
        ("", "mask IoU"),
        (" class=text", "class a"),
    ]
    rows = [re.findall(r"<td[^>]*>([^<]*)<", row) for row in re.findall(r"<tr>(<td.*?)</tr>", part)]
    assert rows == [["near.jpg", "2", "0.5", ""], ["far.jpg", "0", "0.9123", "car"], ["none.jpg", "1", "", "cow"]]


def test_pictures_beyond_a_size_stay_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("spectrum", "prototypes-00", "prototypes-01")
    for name in names:
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((4, 4, 3), np.uint8))
    write(tmp_path, pictures=[PictureFile(f"{name}.png", "x") for name in names])
    monkeypatch.setattr(pages, "_PICTURE_BYTES", 2 * (tmp_path / "spectrum.png").stat().st_size)
    done = run("report", ".", "--out", "index.html", cwd=tmp_path)
    assert done.stdout.strip() == "index.html, and 1 page that leads back to it"
    text = (tmp_path / "basis.html").read_text(encoding="utf-8")
    assert text.count("<img") == 2
    assert '<p>In the folder: <a href="prototypes-01.png">prototypes-01</a>.</p>' in text


texts = st.text(max_size=9)


@given(
    st.builds(
        ResultManifest,
        command=st.just("basis"),
        about=texts,
        title=texts,
        page=st.just(""),
        models=st.lists(texts, max_size=3),
        numbers=st.lists(
            st.builds(Number, texts, st.none() | st.floats() | st.integers(), st.sampled_from([",", ".1%", ".3f"]))
        ),
        findings=st.lists(texts, max_size=3),
        verdict=st.none() | st.builds(Verdict, st.sampled_from(["pass", "fail", "cannot tell"]), texts),
    )
)
def test_any_manifest_gives_a_page_and_is_read_as_it_was_written(manifest: ResultManifest) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write_manifest(folder, manifest)
        read = read_manifest(path)
        assert read.numbers == [
            Number(one.title, one.value if one.value is not None and math.isfinite(one.value) else None, one.style)
            for one in manifest.numbers
        ]
        assert (read.findings, read.verdict, read.models) == (manifest.findings, manifest.verdict, manifest.models)
        assert read.title == (manifest.title or Path(folder).name)
        assert "</html>" in page_of(Result(path, read), "index.html")


def test_a_manifest_stands_in_the_folder_or_beside_the_file(tmp_path: Path) -> None:
    assert manifest_path(tmp_path, "basis") == tmp_path / "basis.manifest.json"
    assert manifest_path(tmp_path / "t.csv", "extract") == tmp_path / "t.csv.extract.manifest.json"


def test_a_result_that_is_replaced_has_no_manifest_of_the_earlier_run(
    tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest goes before the first file is replaced, and comes after the last."""
    line = "data/images --model sample --overwrite"
    for command, more, last in (
        ("basis", "--pictures 1", "maskprism.drawing.basis.redundancy"),
        ("prototypes", "--moved 0 --cards 0", "maskprism.drawing.cards.card"),
        ("explain", "--limit 1", "maskprism.drawing.sheets.overview"),
    ):
        shutil.copytree(results / command, tmp_path / command)
        with monkeypatch.context() as patch:
            patch.setattr(last, _fail)
            done = run(command, *line.split(), *more.split(), "--out", tmp_path / command, cwd=results.parent)
        assert "the disk is full" in done.stderr
        assert not (tmp_path / command / f"{command}.manifest.json").exists()


def _fail(*_: object, **__: object) -> object:
    raise MaskprismError("the disk is full")


def test_the_manifest_of_a_continued_table_tells_of_the_whole_table(tmp_path: Path, results: Path) -> None:
    line = f"extract data/images --model sample --out {tmp_path / 't.csv'}"
    shutil.copytree(results.parent / "data", tmp_path / "data")
    (late,) = sorted((tmp_path / "data" / "images" / "val").iterdir())[2:]
    late.rename(tmp_path / late.name)
    for images, title in ((2, "instances"), (3, "instances of the last run")):
        assert run(*line.split(), cwd=tmp_path).returncode == 0
        first, second, _ = read_manifest(tmp_path / "t.csv.extract.manifest.json").numbers
        assert (first, second.title) == (Number("images", images, ","), title)
        if images == 2:
            (tmp_path / late.name).rename(late)


def test_numbers_that_are_nearly_whole_are_not_printed_as_whole() -> None:
    assert [Number("CKA", value).text for value in (0.9996, 0.99996, 1.0, 0.5)] == [
        "0.9996",
        "0.99996",
        "1.000",
        "0.500",
    ]
    assert [Number("share", value, ".1%").text for value in (0.9996, 1.0)] == ["99.96%", "100.0%"]


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("compare sample sample --images data/images", "pass"),
        ("compare sample other.onnx --images data/images", "fail"),
        ("compare sample sample --images data/images --conf 0.9999", "cannot tell"),
        ("tune sample --data data/data.yaml --folds 3", "cannot tell"),
    ],
)
def test_verdicts(line: str, outcome: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_little_effort(monkeypatch)
    without_drawing(monkeypatch)
    Tiny(prototypes=9).save(results.parent / "other.onnx")
    command = line.split()[0]
    out = tmp_path / ("out" if command == "compare" else "t.onnx")
    run(*line.split(), "--out", out, cwd=results.parent)
    verdict = read_manifest(manifest_path(out, command)).verdict
    assert verdict is not None
    assert verdict.outcome == outcome
    run("report", tmp_path, "--out", tmp_path / "index.html")
    text = html.unescape((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert f"{outcome.upper()}</strong>{verdict.why}</p>" in text
    page = next(one for one in [*tmp_path.glob("**/compare.html"), *tmp_path.glob("*.tune.html")])
    header = html.unescape(page.read_text(encoding="utf-8")).partition("</header>")[0]
    assert f"{outcome.upper()}</strong>{verdict.why}</p>" in header
    for check in verdict.checks:
        assert f"{check.title} <b>{check.value_text}</b>, tolerance {check.tolerance_text}" in header
