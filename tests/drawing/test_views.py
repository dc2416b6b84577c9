"""What the pictures show, and that they look as they did."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskprism
from maskprism import RULES, Decomposition, Letterbox, Prediction
from maskprism._common.text import in_brief
from maskprism.analysis.instance.regions import pixel_query
from maskprism.core.masks import ULTRALYTICS
from maskprism.datasets.scenes import draw_scene
from maskprism.drawing import attribution_charts, charts, figures, palette, raster, sheets
from maskprism.drawing.photo_boxes import photos_of, size_of
from maskprism.drawing.roles import roles_sheet
from maskprism.drawing.sheets import Panel, Sheet
from maskprism.errors import InputError, MaskprismError
from maskprism.reports.explanation import write_explanation

SEED = 3
INSTANCE, PROTOTYPE = 0, 7


class Explained(NamedTuple):
    """An image (BGR) and what the bundled model says about it."""

    image: np.ndarray
    prediction: Prediction


GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_WIDTH = 900

SHEETS: dict[str, Callable[[Explained], Sheet]] = {
    "overview": lambda s: sheets.overview(s.image, s.prediction),
    "prototype_grid": lambda s: sheets.prototype_grid(s.prediction[INSTANCE]),
    "contribution_grid": lambda s: sheets.contribution_grid(s.prediction[INSTANCE]),
    "contribution_grid_full": lambda s: sheets.contribution_grid(s.prediction[INSTANCE], view="full"),
    "assembly_strip": lambda s: sheets.assembly_strip(s.image, s.prediction[INSTANCE]),
    "crop_view": lambda s: sheets.crop_view(s.image, s.prediction[INSTANCE]),
    "coefficient_view": lambda s: sheets.coefficient_view(s.image, s.prediction[INSTANCE], PROTOTYPE),
}


@pytest.fixture(scope="module")
def drawn() -> Explained:
    image = draw_scene(SEED).image
    prediction = replace(maskprism.load("sample").predict(image), source=f"scene {SEED}")
    assert len(prediction) >= 5
    return Explained(image, prediction[:5])


def noise(size_hw: tuple[int, int], prototypes: int) -> Explained:
    """Random prototypes and coefficients for an image of any shape."""
    rng = np.random.default_rng(prototypes)
    letterbox = Letterbox.fit(size_hw, size_hw)
    height, width = size_hw
    corners = np.sort(rng.uniform(0, 1, (3, 2, 2)), axis=1) * (width, height)
    return Explained(
        rng.integers(0, 255, (*size_hw, 3), dtype=np.uint8),
        Prediction(
            canvas_boxes=corners.reshape(3, 4).astype(np.float32),
            scores=np.array([0.9, 0.8, 0.7], dtype=np.float32),
            classes=np.arange(3),
            coefficients=rng.normal(0, 1, (3, prototypes)).astype(np.float32),
            prototypes=rng.normal(0, 1, (prototypes, *letterbox.grid_hw)).astype(np.float32),
            letterbox=letterbox,
            rule=ULTRALYTICS,
        ),
    )


def small(picture: np.ndarray) -> np.ndarray:
    height = round(picture.shape[0] * GOLDEN_WIDTH / picture.shape[1])
    return cv2.resize(picture, (GOLDEN_WIDTH, height), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("name", SHEETS)
def test_pictures_look_as_they_did(name: str, drawn: Explained, tmp_path: Path) -> None:
    """After a wanted change: delete the file in tests/golden, run again, look at the new one, commit it."""
    picture = cv2.cvtColor(small(raster.draw(SHEETS[name](drawn))), cv2.COLOR_RGB2BGR)
    golden = GOLDEN / f"{name}.png"
    if not golden.exists():
        cv2.imwrite(str(golden), picture)
        pytest.fail(f"there was no {golden.name}; it is written now: look at it and commit it")
    expected = cv2.imread(str(golden))
    assert picture.shape == expected.shape
    difference = np.abs(picture.astype(int) - expected.astype(int))
    assert difference.mean() < 1.0, f"{name} differs by {difference.mean():.2f} of 255 on average"
    assert (difference.max(axis=2) > 60).mean() < 0.005


@pytest.mark.parametrize("name", SHEETS)
def test_matplotlib_figures_show_the_same_picture(name: str, drawn: Explained) -> None:
    """As many pixels, the same panels; letters and lines differ by how their edges are smoothed."""
    sheet = SHEETS[name](drawn)
    expected = raster.draw(sheet)
    data = np.frombuffer(figures.png_bytes(figures.draw(sheet)), dtype=np.uint8)
    picture = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert picture.shape == expected.shape
    coarse = [cv2.resize(shown, (160, 120), interpolation=cv2.INTER_AREA).astype(int) for shown in (picture, expected)]
    difference = np.abs(np.subtract(*coarse))
    assert difference.mean() < 1.5, f"{name} differs by {difference.mean():.2f} of 255 on average"
    assert (difference > 50).mean() < 0.002


def test_a_figure_has_its_text_and_lines_as_vectors(drawn: Explained) -> None:
    sheet = sheets.assembly_strip(drawn.image, drawn.prediction[INSTANCE])
    data = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figures.draw(sheet).savefig(data, format="svg")
    svg = data.getvalue().decode()
    assert svg.count("<image") == len(sheet.panels) + 1  # the scale
    assert "LineCollection" in svg
    assert all(panel.title in svg for panel in sheet.panels)


@pytest.mark.parametrize("side", [1e30, 1e9])
@pytest.mark.parametrize("name", SHEETS)
def test_boxes_beyond_every_picture_are_drawn(name: str, side: float) -> None:
    """What a damaged model says: the corners alone are out of the picture."""
    image, prediction = noise((64, 96), PROTOTYPE + 1)
    far = Explained(image, replace(prediction, canvas_boxes=np.tile(np.float32([-side, -side, side, side]), (3, 1))))
    assert raster.draw(SHEETS[name](far)).std() > 0


def test_figures_stay_out_of_pyplot(drawn: Explained) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    figures.prototype_grid(drawn.prediction[0])
    assert plt.get_fignums() == before


@given(limit=st.floats(0.01, 1000), share=st.floats(-1, 1), name=st.sampled_from(["contribution", "prototype"]))
def test_colours_are_centred_at_zero(limit: float, share: float, name: palette.MapName) -> None:
    values = np.full((2, 2), share * limit, dtype=np.float32)
    red, _, blue = palette.paint(values, limit, name, (2, 2))[0, 0].astype(int)
    if abs(share) < 0.003:
        assert abs(red - blue) < 12
    elif share > 0.05:
        assert red > blue
    elif share < -0.05:
        assert blue > red


def test_maps_are_symmetric_and_readable_without_hue() -> None:
    """The two sides of a map are equally dark, and darker the further from zero."""
    for name in ("contribution", "prototype"):
        light = palette.lookup_table(name) @ np.array([0.299, 0.587, 0.114])
        assert (np.diff(light[:128]) > -0.5).all()
        assert (np.diff(light[128:]) < 0.5).all()
        assert light[127:129].min() > 240


def test_prototype_grid_titles_orders_and_signs(drawn: Explained) -> None:
    instance = drawn.prediction[1]
    sheet = sheets.prototype_grid(instance)
    assert len(sheet.panels) == 32
    for k, panel in enumerate(sheet.panels):
        weight = instance.weights[k]
        assert panel.title.split() == [str(k), f"{weight:+.2f}".replace("-", "−")]
        assert panel.sign == np.sign(weight)
    by_effect = sheets.prototype_grid(instance, order="effect")
    first = int(by_effect.panels[0].title.split()[0])
    assert first == Decomposition(instance).order("effect")[0]


def test_scales_are_shared_unless_asked_otherwise(drawn: Explained) -> None:
    instance = drawn.prediction[0]
    assert len({p.limit for p in sheets.prototype_grid(instance).panels}) == 1
    assert len({p.limit for p in sheets.contribution_grid(instance).panels}) == 1
    strip = sheets.assembly_strip(drawn.image, instance)
    assert len({p.limit for p in strip.panels if p.values is not None}) == 1
    assert len({p.limit for p in sheets.prototype_grid(instance, scale="each").panels}) > 8


def test_contributions_sum_to_the_logits_panel(drawn: Explained) -> None:
    instance = drawn.prediction[2]
    grid = sheets.contribution_grid(instance, view="full")
    total = np.sum([panel.values for panel in grid.panels], axis=0)
    logits = sheets.crop_view(drawn.image, instance).panels[0].values
    np.testing.assert_allclose(total, logits, atol=1e-4)


def test_assembly_strip_is_an_equation(drawn: Explained) -> None:
    strip = sheets.assembly_strip(drawn.image, drawn.prediction[2])
    _, positive, negative, logits, _ = strip.panels
    assert [p.joint for p in strip.panels] == ["", "", "+", "=", "→"]
    assert positive.values is not None
    assert negative.values is not None
    assert positive.values.min() >= 0 >= negative.values.max()
    np.testing.assert_allclose(positive.values + negative.values, logits.values, atol=1e-4)


def test_crop_view_tells_how_much_is_cut(drawn: Explained) -> None:
    instance = drawn.prediction[INSTANCE]
    whole = instance.alone.with_rule("no-crop").masks("image")[0]
    cut = 1 - instance.mask("image").sum() / whole.sum()
    assert f"{cut:.1%}" in sheets.crop_view(drawn.image, instance).subtitle


def test_large_images_are_shrunk(drawn: Explained) -> None:
    image = cv2.resize(drawn.image, (6400, 6400), interpolation=cv2.INTER_NEAREST)
    letterbox = replace(drawn.prediction.letterbox, image_hw=(6400, 6400))
    prediction = replace(drawn.prediction, letterbox=letterbox)
    shown = sheets.overview(image, prediction).panels[0].picture
    assert shown is not None
    assert max(shown.shape) == sheets.IMAGE_SIDE


def test_no_instances_and_empty_masks_are_drawn(drawn: Explained) -> None:
    none = drawn.prediction[:0]
    assert "0 instances" in sheets.overview(drawn.image, none).subtitle
    raster.draw(sheets.overview(drawn.image, none))
    nothing = replace(drawn.prediction, coefficients=-np.abs(drawn.prediction.coefficients) * 0)
    sheet = sheets.overview(drawn.image, nothing)
    assert all("(empty mask)" in label.text for label in sheet.panels[0].labels)
    for build in SHEETS.values():
        raster.draw(build(Explained(drawn.image, nothing)))
        figures.draw(build(Explained(drawn.image, nothing)))


@pytest.mark.parametrize("size_hw", [(32, 960), (960, 32), (64, 64)])
@pytest.mark.parametrize("prototypes", [8, 64])
def test_any_shape_and_number_of_prototypes(size_hw: tuple[int, int], prototypes: int) -> None:
    image, prediction = noise(size_hw, prototypes)
    for index in range(len(prediction)):
        instance = prediction[index]
        for sheet in (sheets.prototype_grid(instance), sheets.contribution_grid(instance)):
            assert len(sheet.panels) == prototypes
            picture = raster.draw(sheet)
            assert max(picture.shape) < 6000
        raster.draw(sheets.assembly_strip(image, instance))
        raster.draw(sheets.crop_view(image, instance))


def test_titles_of_narrow_panels_are_whole(drawn: Explained, monkeypatch: pytest.MonkeyPatch) -> None:
    tall = replace(drawn.prediction, canvas_boxes=np.tile(np.float32([100, 0, 120, 320]), (5, 1)))
    written: list[str] = []
    monkeypatch.setattr(raster, "write", lambda page, xy, text, *rest, **options: written.append(text))
    for sheet in (
        sheets.contribution_grid(tall[0]),
        sheets.prototype_grid(tall[0]),
        sheets.assembly_strip(drawn.image, tall[0]),
    ):
        raster.draw(sheet)
        assert {panel.title for panel in sheet.panels} <= set(written)


def test_of_256_prototypes_the_strongest_are_drawn_and_the_others_added_up() -> None:
    prediction = noise((128, 96), 256).prediction
    for instance, order in ((prediction[0], "effect"), (prediction[1], "index")):
        parts = Decomposition(instance)
        contributions = sheets.contribution_grid(instance, order=order, view="full")
        *shown, others = contributions.panels
        assert [int(panel.title.split()[0]) for panel in shown] == [
            k for k in parts.order(order) if k in parts.order()[: sheets.MOST_PANELS]
        ]
        assert others.title.startswith("192 others")
        total = np.sum([panel.values for panel in contributions.panels], axis=0)
        np.testing.assert_allclose(total, parts.logits, atol=1e-3)
        grid = sheets.prototype_grid(instance, order=order)
        assert [panel.title.split()[0] for panel in grid.panels] == [panel.title.split()[0] for panel in shown]
        assert grid.notes[-1] == "Not drawn: the 192 prototypes with the least effect in the box."
        for sheet in (grid, contributions):
            assert max(raster.draw(sheet).shape) < 3000


@pytest.mark.parametrize("draw", [raster.draw, figures.draw])
def test_a_stretched_image_is_drawn_in_its_own_shape(draw: Callable[[Sheet], object]) -> None:
    image, prediction = noise((64, 64), 4)
    wide = replace(prediction, letterbox=Letterbox.stretch((64, 192), (64, 64)))
    fitted = replace(prediction, letterbox=Letterbox.fit((64, 64), (64, 64)))
    for one, shape in ((wide, 3.0), (fitted, 1.0)):
        for sheet in (sheets.prototype_grid(one[0]), sheets.contribution_grid(one[0], view="full")):
            assert {panel.pixel_aspect for panel in sheet.panels} == {shape}
            assert sheet.panels[0].aspect == 1 / shape
            draw(sheet)
    strip = sheets.assembly_strip(np.repeat(image, 3, axis=1), wide[0])
    assert [panel.pixel_aspect for panel in strip.panels] == [1, 3, 3, 3, 1]
    draw(strip)
    half = Panel("", values=np.ones((4, 4), np.float32), pixel_aspect=2.0, box=(1, 1, 3, 3))
    picture = raster.draw(Sheet("", (half,), size_wh=(800, 400)))
    dark = np.argwhere((picture == palette.INK).all(axis=2) & (np.arange(len(picture)) > 60)[:, None])
    height, width = np.ptp(dark, axis=0) + 1
    assert width == pytest.approx(2 * height, abs=2)  # the box


def test_masks_without_boxes_are_drawn_without_one(drawn: Explained) -> None:
    image, prediction = drawn
    alone = replace(prediction, canvas_boxes=None, rule=RULES["no-crop"])
    cropless = sheets.overview(image, prediction.with_rule("no-crop")).panels[0].picture
    sheet = sheets.overview(image, alone)
    assert sheet.subtitle.endswith("mask rule no-crop; the model gives no boxes, so nothing is cropped")
    assert (sheet.panels[0].picture != cropless).any()
    for instance in alone:
        for build in (sheets.prototype_grid, sheets.contribution_grid):
            raster.draw(build(instance))
        assert sheets.NO_BOXES in sheets.contribution_grid(instance).notes
        strip = sheets.assembly_strip(image, instance)
        assert strip.subtitle.endswith("mask = logit > 0")
        assert np.ptp(strip.panels[4].picture, axis=2).any() == instance.mask().any()
        raster.draw(sheets.coefficient_view(image, instance, PROTOTYPE))
        with pytest.raises(InputError, match="the prediction has no boxes, so nothing is cropped"):
            sheets.crop_view(image, instance)


def test_boxes_outside_the_image_are_drawn(drawn: Explained) -> None:
    boxes = np.array([[-50, -50, -10, -10], [350, 400, 800, 600], [10, 10, 10, 10], [0, 0, 320, 320], [319, 0, 320, 1]])
    odd = replace(drawn.prediction, canvas_boxes=boxes.astype(np.float32))
    for instance in odd:
        raster.draw(sheets.overview(drawn.image, odd))
        raster.draw(sheets.contribution_grid(instance))
        raster.draw(sheets.assembly_strip(drawn.image, instance))
        raster.draw(sheets.crop_view(drawn.image, instance))


def test_wrong_image_is_refused(drawn: Explained) -> None:
    with pytest.raises(InputError, match="100 x 50 pixels; the prediction is about one of 320 x 320"):
        sheets.overview(np.zeros((50, 100, 3), np.uint8), drawn.prediction)


def test_wrong_options_are_refused(drawn: Explained) -> None:
    instance = drawn.prediction[0]
    with pytest.raises(InputError, match="scale is 'same'"):
        sheets.prototype_grid(instance, scale="same")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="view is 'all'"):
        sheets.contribution_grid(instance, view="all")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="order is 'size'"):
        sheets.prototype_grid(instance, order="size")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"coefficient index 32 is out of range: the model has 32 prototypes"):
        sheets.coefficient_view(drawn.image, instance, 32)


def test_notes_are_wrapped_and_numbers_signed(drawn: Explained) -> None:
    letters, text = raster.font(17), "it need not be the same instance in every column " * 3
    lines = raster.wrapped(text, letters, 200)
    assert " ".join(lines) == text.strip()
    assert all(letters.getlength(line) <= 200 for line in lines)
    assert raster.wrapped("x" * 99, letters, 200)[0].endswith("…")
    sheet = replace(sheets.prototype_grid(drawn.prediction[0]), notes=("short",))
    lower = raster.draw(replace(sheet, notes=(text * 4,))).shape[0] - raster.draw(sheet).shape[0]
    assert lower > 0
    assert lower % 26 == 0
    numbers = [sheets.signed(value) for value in (1.234, -1.235, 0.004, -0.004, -0.0, 0.006)]
    assert numbers == ["+1.23", "−1.24", "0.00", "0.00", "0.00", "+0.01"]


def test_best_instances(drawn: Explained) -> None:
    scores = np.array([0.3, 0.9, 0.5, 0.1, 0.2], dtype=np.float32)
    prediction: Prediction = replace(drawn.prediction, scores=scores)
    assert list(sheets.best_instances(prediction, None)) == [1]
    assert list(sheets.best_instances(prediction, "all")) == [0, 1, 2, 3, 4]
    assert list(sheets.best_instances(prediction, 4)) == [4]
    assert list(sheets.best_instances(prediction[:0], None)) == []
    with pytest.raises(InputError, match=r"instance 5 is out of range: scene 3 has 5 instances \(0\.\.4\)"):
        sheets.best_instances(prediction, 5)


def test_png_is_lossless_and_rgb(drawn: Explained, tmp_path: Path) -> None:
    sheet = sheets.prototype_grid(drawn.prediction[0])
    path = raster.save(sheet, tmp_path / "a" / "b ü.png")
    decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), raster.draw(sheet))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["overview", "assembly", "roles", "figure"])
def test_a_png_says_where_its_photographs_are(name: str, drawn: Explained, tmp_path: Path) -> None:
    """What lies outside of them are maps, letters and paper."""
    image, instance = drawn.image, drawn.prediction[0]
    path = tmp_path / "a.png"
    if name == "figure":
        query = pixel_query(instance, *(int(side) for side in instance.box[:2]))
        figures.save(attribution_charts.waterfall(instance, query, image=image), path, dpi=100)
    else:
        sheet = {
            "overview": lambda: sheets.overview(image, drawn.prediction),
            "assembly": lambda: sheets.assembly_strip(image, instance),
            "roles": lambda: roles_sheet(image, instance),
        }[name]()
        raster.save(sheet, path)
    png = path.read_bytes()
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert size_of(png) == picture.shape[1::-1]
    photos = photos_of(png)
    assert photos is not None
    assert len(photos) == (2 if name == "assembly" else 1)
    height, width = picture.shape[:2]
    for x1, y1, x2, y2 in photos:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert (picture[y1:y2, x1:x2].min(axis=2) < 200).mean() > 0.3  # not paper
    assert photos_of(cv2.imencode(".png", picture)[1].tobytes()) is None


def test_unwritable_folder_is_reported(drawn: Explained, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MaskprismError, match="cannot be written"):
        raster.save(sheets.prototype_grid(drawn.prediction[0]), tmp_path / "file" / "x.png")


def test_explanation_files(drawn: Explained, tmp_path: Path) -> None:
    written = write_explanation(drawn.image, drawn.prediction, tmp_path, [0, 4])
    names = {path.name for path in written}
    kinds = ("prototypes.png", "contributions.png", "contributions-full.png", "assembly.png", "crop.png", "roles.png")
    assert names == {"overview.png", *(f"{i:02d}-{kind}" for i in (0, 4) for kind in (*kinds, "roles.csv"))}
    assert names == {path.name for path in tmp_path.iterdir()}
    alone = replace(drawn.prediction[:1], canvas_boxes=None, rule=RULES["no-crop"])
    written = write_explanation(drawn.image, alone, tmp_path / "alone", [0])
    kinds = ("prototypes.png", "contributions.png", "contributions-full.png", "assembly.png", "roles.png", "roles.csv")
    assert {path.name for path in written} == {"overview.png", *(f"00-{kind}" for kind in kinds)}


def test_histograms_count_every_instance() -> None:
    coefficients = np.random.default_rng(0).normal(0, 1, (200, 10)).astype(np.float32)
    figure = charts.histograms(coefficients)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert len(shown) == 10
    for ax in shown:
        assert sum(bar.vertices[:, 1].max() for bar in ax.collections[0].get_paths()) == 200
    with pytest.raises(InputError, match="at least 1 row"):
        charts.histograms(coefficients[:0])


def test_correlation_equals_numpy_and_leaves_constants_out() -> None:
    coefficients = np.random.default_rng(0).normal(0, 1, (50, 6)).astype(np.float32)
    coefficients[:, 1] = 2 * coefficients[:, 0] + 0.1 * coefficients[:, 1]
    coefficients[:, 5] = 3.0
    shown = charts.correlation(coefficients).axes[0].images[0].get_array()
    assert shown.mask[5].all()
    expected = np.corrcoef(coefficients[:, :5].astype(float), rowvar=False)
    np.testing.assert_allclose(np.asarray(shown[:5, :5]), expected, atol=1e-6)
    with pytest.raises(InputError, match="at least 2 rows"):
        charts.correlation(coefficients[:1])


def test_names_along_an_axis_stay_readable() -> None:
    for count, shown in (
        (0, []),
        (1, ["0"]),
        (32, [str(k) for k in range(32)]),
        (256, [str(k) for k in range(0, 256, 4)]),
    ):
        ax = figures.new_figure(4, 3).subplots()
        figures.name_ticks(ax.xaxis, [str(k) for k in range(count)], rotation=90)
        assert [label.get_text() for label in ax.get_xticklabels()] == shown
        assert ax.get_xticks().tolist() == [int(name) for name in shown]


def test_long_lists_are_told_in_brief() -> None:
    assert in_brief([]) == ""
    assert in_brief(range(3)) == "0 1 2"
    assert in_brief("abcd", most=4) == "a b c d"
    assert in_brief("abcd", most=2) == "a b … and 2 more"


@pytest.mark.parametrize("odd", ["a\nb", "a\rb", "\x1b[31m", "a\u2028b", "a\u202eb", "a\udcffb", "\ud800", "$\\frac$"])
@pytest.mark.parametrize("draw", [raster.draw, lambda sheet: figures.png_bytes(figures.draw(sheet))])
def test_names_of_somebody_else_are_drawn_whatever_they_hold(draw: Callable[[Sheet], object], odd: str) -> None:
    label = sheets.Label(odd, (1.0, 1.0), (255, 0, 0))
    panel = Panel(odd, picture=np.zeros((8, 8, 3), np.uint8), labels=(label,))
    draw(Sheet(odd, (panel,), subtitle=odd, notes=(odd,)))


def test_all_axes_have_the_one_style() -> None:
    figure = figures.new_figure(6, 4)
    left, right = figure.subplots(1, 2)
    bar = figure.colorbar(left.imshow([[0, 1]]), ax=left)
    for ax in (left, right, bar.ax, figure.add_axes((0, 0, 1, 1)), figure.add_subplot()):
        assert isinstance(ax, figures.PlainAxes)
        assert not ax.spines["top"].get_visible()
        assert not ax.spines["right"].get_visible()
    right.set_title("of the right one")
    right.plot([0, 1], label="a line")
    assert right.get_title() == "of the right one"
    assert not right.legend().get_frame_on()


def test_names_of_rows_are_not_cut_off() -> None:
    """A map of squares beside its scale: the names at its left are inside the picture."""
    figure = charts.correlation(np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32))
    figures.png_bytes(figure)
    assert figure.axes[0].get_tightbbox().x0 >= 0
