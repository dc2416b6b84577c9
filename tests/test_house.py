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

import in_process
from maskprism.scenes import write_dataset

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
    assert "and 2 pages beside the results" in done.stdout
    index = results / "index.html"
    expected = {
        results / "page.html",
        *(results / name / "report.html" for name in ("basis", "prototypes", "diagnosis")),
    }
    assert set(links(index)) == expected
    for name in ("basis", "prototypes"):
        assert index in links(results / name / "report.html")
    text = index.read_text(encoding="utf-8")
    assert "effective rank" in text or "effective_rank" in json.loads((results / "basis" / "basis.json").read_text())
    again = run("report", "results", "--out", "results/index.html", cwd=results.parent)
    assert again.stdout == done.stdout
    assert (results / "index.html").read_text(encoding="utf-8") == text  # it does not list itself


def test_pages_hold_the_pictures_and_tables_of_their_folder(results: Path) -> None:
    run("report", "results", "--out", "elsewhere/all.html", cwd=results.parent)
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
    (folder / "basis.json").write_text('{"a": 1.5, "b": {"c": 2}, "d": "<i>", "e": [1], "f": true}')
    cv2.imwrite(str(folder / "one.png"), np.zeros((4, 4, 3), np.uint8))
    (folder / "rows.csv").write_text("name,value\n<script>,-0.123456\n")
    assert run("report", ".", "--out", "index.html", cwd=tmp_path).returncode == 0
    for page in (tmp_path / "index.html", folder / "report.html"):
        text = page.read_text(encoding="utf-8")
        assert "<b>x" not in text
        assert "<script>,"[:8] not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert links(tmp_path / "index.html") == [folder / "report.html"]
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
    assert "comparison.json: is no JSON" in fails("empty", "--out", "i.html")
