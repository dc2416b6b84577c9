"""One address for what was computed: what is found, linked, and given a page."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path
from urllib.parse import unquote_to_bytes

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import in_process
from maskprism.datasets.scenes import write_dataset
from maskprism.reports.index import pages
from maskprism.reports.index.pages import sentences
from maskprism.reports.index.result_types import KINDS
from maskprism.reports.index.results import Result

run = partial(in_process.command)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands write over three scenes."""
    folder = tmp_path_factory.mktemp("house ü")
    write_dataset(folder / "data", 3, validation_share=1.0)
    for line in (
        "basis data/images --model sample --out results/basis --pictures 1",
        "prototypes data/images --model sample --out results/prototypes --moved 0 --cards 0 3",
        "diagnose data/data.yaml --model sample --out results/diagnosis --worst 2",
        "page data/images --model sample --out results/page.html",
        "extract data/images --model sample --out table.csv",
        "atlas table.csv --out results/atlas",
    ):
        done = run(*line.split(), cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder / "results"


def links(page: Path) -> list[Path]:
    found = re.findall(r'href="([^"#]+)"', page.read_text(encoding="utf-8"))
    return [Path(os.path.normpath(page.parent / os.fsdecode(unquote_to_bytes(html.unescape(link))))) for link in found]


def test_everything_is_linked_and_leads_back(results: Path) -> None:
    done = run("report", "results", "--out", "results/index.html", cwd=results.parent)
    assert done.returncode == 0, done.stderr
    assert "and 4 pages that lead back to it" in done.stdout
    index = results / "index.html"
    expected = {
        results / "page.html",
        results / "diagnosis" / "report.html",
        *(results / name / f"{name}.html" for name in ("atlas", "basis", "prototypes")),
    }
    assert set(links(index)) == expected
    for page in expected - {results / "page.html"}:
        assert index in links(page)
    text = index.read_text(encoding="utf-8")
    said = json.loads((results / "basis" / "basis.json").read_text())
    assert f"effective rank of what is drawn <b>{said['effective_rank']['contributions']:.1f}</b>" in text
    said = json.loads((results / "diagnosis" / "summary.json").read_text())
    assert f"mask AP <b>{said['average_precision']['predict']['ap']:.3f}</b>" in text
    assert text.count("sample.onnx") == 2  # the networks, where files name them
    again = run("report", "results", "--out", "results/index.html", "--overwrite", cwd=results.parent)
    assert again.stdout == done.stdout
    assert (results / "index.html").read_text(encoding="utf-8") == text  # it does not list itself


def test_pages_hold_the_pictures_and_tables_of_their_folder(results: Path) -> None:
    run("report", "results", "--out", "elsewhere/all.html", cwd=results.parent)
    elsewhere = results.parent / "elsewhere" / "all.html"
    found = links(results / "diagnosis" / "report.html")
    assert elsewhere in found  # in place of the index before
    assert results / "index.html" not in found
    for name in ("basis", "prototypes"):
        folder = results / name
        text = (folder / f"{name}.html").read_text(encoding="utf-8")
        assert text.count("data:image/png;base64,") == len(list(folder.glob("*.png"))) > 0
        for table in folder.glob("*.csv"):
            assert f'<section id="table-{table.stem}">' in text
            rows = len(table.read_text(encoding="utf-8").splitlines()) - 1
            (part,) = re.findall(rf'<section id="table-{table.stem}">(.*?)</section>', text, re.DOTALL)
            assert part.count("<tr>") == rows + 1
        assert results.parent / "elsewhere" / "all.html" in links(folder / f"{name}.html")


def test_names_of_files_are_text(tmp_path: Path) -> None:
    folder = tmp_path / "<b>x&amp;\"'"
    folder.mkdir()
    (folder / "basis.json").write_text(
        '{"images": 1.5, "effective_rank": {"coefficients": "<i>"}, "dead": ["<script>x"], '
        '"redundant_pairs": [{"first": "<script>y", "second": {}}, 7]}'
    )
    cv2.imwrite(str(folder / "spectrum.png"), np.zeros((4, 4, 3), np.uint8))
    (folder / "prototypes.csv").write_text("<script>z,value\n<script>,-0.123456\n")
    assert run("report", ".", "--out", "index.html", cwd=tmp_path).returncode == 0
    for page in (tmp_path / "index.html", folder / "basis.html"):
        text = page.read_text(encoding="utf-8")
        assert "<b>x" not in text
        assert len(re.findall("<script>", text)) == 1  # of the report
    assert links(tmp_path / "index.html") == [folder / "basis.html"]
    assert folder / "spectrum.png" in links(folder / "basis.html")
    assert "−0.1235" in (folder / "basis.html").read_text(encoding="utf-8")


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    def fails(*arguments: str) -> str:
        done = run("report", *arguments, cwd=tmp_path)
        assert done.returncode == 1
        return done.stderr

    assert "missing: is no folder; expected one with results" in fails("missing", "--out", "i.html")
    (tmp_path / "empty").mkdir()
    assert "empty: holds nothing that maskprism diagnose" in fails("empty", "--out", "i.html")
    assert "is a folder; expected the name of a file" in fails("empty", "--out", "empty")
    (tmp_path / "empty" / "comparison.json").write_text("{")
    assert "comparison.json: " in fails("empty", "--out", "i.html")
    (tmp_path / "empty" / "comparison.json").write_text("[1, 2]")
    assert "comparison.json: " in fails("empty", "--out", "i.html")
    (tmp_path / "empty" / "comparison.json").unlink()
    (tmp_path / "empty" / "basis.json").write_text("{}")
    (tmp_path / "empty" / "prototypes.csv").write_bytes(b"a,b\n\xff\xfe,\x00")
    assert "prototypes.csv: cannot be read as CSV" in fails("empty", "--out", "i.html")
    (tmp_path / "empty" / "prototypes.csv").write_text("a,b\n1\n")
    assert "prototypes.csv: has rows that are longer or shorter than its headings" in fails("empty", "--out", "i.html")
    (tmp_path / "empty" / "basis.json").write_text('{"a":' + "[" * 200_000)
    assert "basis.json: cannot be read as JSON" in fails("empty", "--out", "i.html")
    assert not (tmp_path / "i.html").exists()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "summary.json").write_text("[]")
    (tmp_path / "theirs" / "report.html").write_text('<p class="kicker">maskprism diagnose</p>')
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "basis.json").write_text('{"images": NaN}'.replace("NaN", "true"))
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
        assert "basis.html: is a file of somebody else; move it away" in done.stderr
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
    (folder / "basis.json").write_text("{}")
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((4, 4, 3), np.uint8))
    for stem in ("spectrum", f"prototypes-{os.fsdecode(name)}"):
        shutil.copy(tmp_path / "one.png", folder / f"{stem}.png")
    assert run("report", ".", "--out", "index.html", cwd=tmp_path).returncode == 0
    assert links(tmp_path / "index.html") == [folder / "basis.html"]
    expected = {tmp_path / "index.html", folder / "spectrum.png", folder / f"prototypes-{os.fsdecode(name)}.png"}
    assert set(links(folder / "basis.html")) == expected


def test_tables_show_first_what_matters(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text(
        '{"a": {"name": "x.onnx"}, "b": {"name": "y.pt"}, "unmatched_share": 0.25}'
    )
    (tmp_path / "instances.csv").write_text(
        "image,instance_a,class_a,mask_iou,own_canvas_iou\nfar.jpg,0,car,0.91234567,\nnone.jpg,1,cow,,\nnear.jpg,2,,0.5,\n"
    )
    assert run("report", ".", "--out", "index.html", cwd=tmp_path).returncode == 0
    text = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert "A x.onnx · B y.pt · How two networks differ" in text
    assert "<dt>without a partner</dt><dd>25.0%</dd>" in text
    (part,) = re.findall(r'<section id="table-instances">(.*?)</section>', text, re.DOTALL)
    headings = re.findall(r"<th scope=\"col\"( class=text)?><button type=\"button\">([^<]*)<", part)
    assert headings == [
        (" class=text", "image"),
        ("", "instance in A"),
        ("", "mask IoU"),
        (" class=text", "class in A"),
    ]
    rows = [re.findall(r"<td[^>]*>([^<]*)<", row) for row in re.findall(r"<tr>(<td.*?)</tr>", part)]
    assert rows == [["near.jpg", "2", "0.5", ""], ["far.jpg", "0", "0.9123", "car"], ["none.jpg", "1", "", "cow"]]


def test_pictures_beyond_a_size_stay_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "basis.json").write_text("{}")
    for name in ("spectrum", "prototypes-00", "prototypes-01"):
        (tmp_path / f"{name}.png").write_bytes(b"1234")
    monkeypatch.setattr(pages, "_PICTURE_BYTES", 8)
    assert run("report", ".", "--out", "index.html", cwd=tmp_path).returncode == 0
    text = (tmp_path / "basis.html").read_text(encoding="utf-8")
    assert text.count("<img") == 2
    assert '<p>In the folder: <a href="prototypes-01.png">prototypes-01</a>.</p>' in text


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.just(10**400) | st.integers() | st.text(),
        lambda one: (
            st.lists(one)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "parts",
                        "mask_iou",
                        "mean",
                        "images",
                        "tolerance",
                        "violations",
                        "guilty",
                        "dead",
                        "redundant_pairs",
                    ]
                ),
                one,
            )
        ),
        max_leaves=12,
    )
)
def test_any_content_of_a_file_gives_a_page(said: object) -> None:
    content = said if isinstance(said, dict) else {"parts": said, "guilty": said, "dead": said, "redundant_pairs": said}
    for kind in KINDS:
        result = Result(kind, Path("a/report.html"), "a", content)
        assert all(isinstance(value, str) for pair in result.numbers for value in pair)
        assert all(isinstance(one, str) for one in sentences(result))
