"""One address for what was computed: what is found, linked, and given a page."""

from __future__ import annotations

import html
import json
import os
import re
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import in_process
from maskprism.scenes import write_dataset
from maskprism.views.house import KINDS, Result, _sentences

run = partial(in_process.command)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands write over three scenes."""
    folder = tmp_path_factory.mktemp("house ü")
    write_dataset(folder / "data", 3, validation_share=1.0)
    for line in (
        "basis data/images --out results/basis --pictures 1",
        "prototypes data/images --out results/prototypes --moved 0 --cards 0 3",
        "diagnose data/data.yaml --out results/diagnosis --worst 2",
        "page data/images --out results/page.html",
        "extract data/images --out table.csv",
        "atlas table.csv --out results/atlas",
    ):
        done = run(*line.split(), cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder / "results"


def links(page: Path) -> list[Path]:
    found = re.findall(r'href="([^"#]+)"', page.read_text(encoding="utf-8"))
    return [Path(os.path.normpath(page.parent / unquote(html.unescape(link)))) for link in found]


def test_everything_is_linked_and_leads_back(results: Path) -> None:
    done = run("report", "results", "--out", "results/index.html", cwd=results.parent)
    assert done.returncode == 0, done.stderr
    assert "and 4 pages that lead back to it" in done.stdout
    index = results / "index.html"
    expected = {
        results / "page.html",
        *(results / name / "report.html" for name in ("basis", "prototypes", "diagnosis")),
        results / "atlas" / "atlas.html",
    }
    assert set(links(index)) == expected
    for page in expected - {results / "page.html"}:
        assert index in links(page)
    text = index.read_text(encoding="utf-8")
    said = json.loads((results / "basis" / "basis.json").read_text())
    assert f"effective rank of what is drawn {said['effective_rank']['contributions']:.1f}" in text
    said = json.loads((results / "diagnosis" / "summary.json").read_text())
    assert f"mask AP {said['average_precision']['predict']['ap']:.3f}" in text
    again = run("report", "results", "--out", "results/index.html", cwd=results.parent)
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
        text = (folder / "report.html").read_text(encoding="utf-8")
        assert text.count("data:image/png;base64,") == len(list(folder.glob("*.png"))) > 0
        for table in folder.glob("*.csv"):
            assert f'<section id="table-{table.stem}">' in text
            rows = len(table.read_text(encoding="utf-8").splitlines()) - 1
            (part,) = re.findall(rf'<section id="table-{table.stem}">(.*?)</section>', text, re.DOTALL)
            assert part.count("<tr>") == rows + 1
        assert results.parent / "elsewhere" / "all.html" in links(folder / "report.html")


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
    for page in (tmp_path / "index.html", folder / "report.html"):
        text = page.read_text(encoding="utf-8")
        assert "<b>x" not in text
        assert len(re.findall("<script>", text)) == 1  # of the report
    assert links(tmp_path / "index.html") == [folder / "report.html"]
    assert folder / "spectrum.png" in links(folder / "report.html")
    assert "−0.1235" in (folder / "report.html").read_text(encoding="utf-8")


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    def fails(*arguments: str) -> str:
        done = run("report", *arguments, cwd=tmp_path)
        assert done.returncode == 1
        return done.stderr

    assert "missing: is no folder; expected one with results" in fails("missing", "--out", "i.html")
    (tmp_path / "empty").mkdir()
    assert "empty: holds nothing that maskprism diagnose" in fails("empty", "--out", "i.html")
    assert "is a folder; expected the name of the index" in fails("empty", "--out", "empty")
    (tmp_path / "empty" / "comparison.json").write_text("{")
    assert "comparison.json: " in fails("empty", "--out", "i.html")
    (tmp_path / "empty" / "comparison.json").write_text("[1, 2]")
    assert "comparison.json: " in fails("empty", "--out", "i.html")
    (tmp_path / "empty" / "comparison.json").unlink()
    (tmp_path / "empty" / "basis.json").write_text("{}")
    (tmp_path / "empty" / "prototypes.csv").write_bytes(b"a,b\n\xff\xfe,\x00")
    assert "prototypes.csv: cannot be read as CSV" in fails("empty", "--out", "i.html")
    assert not (tmp_path / "i.html").exists()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "summary.json").write_text("[]")
    (tmp_path / "theirs" / "report.html").write_text('<p class="kicker">maskprism diagnose</p>')
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "basis.json").write_text('{"images": NaN}'.replace("NaN", "true"))
    (tmp_path / "loop").symlink_to(tmp_path)
    assert run("report", ".", "--out", "index.html", cwd=tmp_path).returncode == 0
    assert links(tmp_path / "index.html") == [tmp_path / "ours" / "report.html"]
    assert "href" not in (tmp_path / "theirs" / "report.html").read_text()


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
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
        assert all(isinstance(one, str) for one in _sentences(result))
