"""Names are drawn literally: no formulas, no markup, whatever letters they have."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib as mpl
import pytest
import yaml

import maskprism
from helpers.in_process import command as run
from maskprism.datasets.scenes import write_dataset
from maskprism.drawing import figures

NAMES = ["$5 note", "a_b$c$", "\\alpha", "$\\frac{1$", "<b>&amp;", "한국어", "tab\tname", "x" * 300, "$", "^{_}$$"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes whose classes and images have odd names."""
    folder = tmp_path_factory.mktemp("odd $ names")
    data = write_dataset(folder, 4, seed=60, validation_share=0.5)
    data.write_text(yaml.safe_dump(yaml.safe_load(data.read_text()) | {"names": NAMES}, allow_unicode=True))
    image = sorted((folder / "images" / "val").iterdir())[0]
    image.rename(image.with_name(f"$x_{{{image.name}"))
    label = folder / "labels" / "val" / f"{image.stem}.txt"
    label.rename(label.with_name(f"$x_{{{label.name}"))
    shutil.copy(data, folder / "names.yaml")
    return data


COMMANDS = {
    "diagnose": ["diagnose", "{data}"],
    "prototypes": ["prototypes", "{images}", "--cards", "3"],
    "basis": ["basis", "{images}"],
    "explain": ["explain", "{images}", "--attribution"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_odd_names_are_drawn(command: str, data: Path, tmp_path: Path) -> None:
    places = {"data": data, "images": data.parent / "images" / "val"}
    arguments = [part.format(**places) for part in COMMANDS[command]]
    result = run(*arguments, "--model", "sample", "--names", data, "--out", tmp_path / "out $ \\x")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    assert list((tmp_path / "out $ \\x").rglob("*.png"))


def test_an_atlas_of_odd_names(data: Path, tmp_path: Path) -> None:
    table = tmp_path / "t $ \\x#?%.csv"
    assert (
        run("extract", data.parent / "images" / "val", "--model", "sample", "--names", data, "--out", table).returncode
        == 0
    )
    result = run("atlas", table, "--out", tmp_path / "out $ \\x")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for name in ("atlas.html", "map.html"):
        assert "<b>&amp;" not in (tmp_path / "out $ \\x" / name).read_text(encoding="utf-8")


@pytest.mark.filterwarnings("error", "ignore:Glyph .* missing from font")  # it is the user who saves the figure
def test_a_dollar_begins_no_formula(data: Path, tmp_path: Path) -> None:
    """Also where the figure is the user's to save, in any format, and other figures keep their formulas."""
    model = maskprism.load("sample", names=NAMES)
    image = sorted((data.parent / "images" / "val").iterdir())[0]
    prediction = model.predict(image)
    figure = figures.overview(image, prediction)
    figure.suptitle("$\\frac{1$")
    figure.savefig(tmp_path / "a.svg", bbox_inches="tight")
    figure.savefig(tmp_path / "a.png")
    mpl.rcParams["svg.fonttype"] = "none"
    try:
        figure.savefig(tmp_path / "text.svg")
    finally:
        mpl.rcParams["svg.fonttype"] = "path"
    assert "$\\frac{1$" in (tmp_path / "text.svg").read_text()
    assert mpl.rcParams["text.parse_math"] is True
