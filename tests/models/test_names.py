"""Models without class names: names from elsewhere, and data sets that are matched by index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import maskprism
from helpers.in_process import command as run
from helpers.in_process import says
from helpers.small_datasets import coco
from helpers.tiny_models import NAMES, Tiny, ultralytics_metadata
from maskprism.analysis.comparison.paired_run import compare
from maskprism.analysis.dataset.diagnosis import diagnose
from maskprism.analysis.truth.labels import open_labels
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import write_dataset
from maskprism.errors import InputError, ModelError
from maskprism.models.names import read_names
from maskprism.reports.diagnosis import warnings_of

OTHERS = {0: "apple", 1: "pear ü", 2: "plum"}


@pytest.fixture
def nameless(tmp_path: Path) -> Path:
    return Tiny().save(tmp_path / "nameless.onnx")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model as a foreign export: without any metadata."""
    import onnx

    from maskprism.models import SAMPLE_MODEL

    network = onnx.load(SAMPLE_MODEL)
    del network.metadata_props[:]
    path = tmp_path_factory.mktemp("bare") / "bare.onnx"
    onnx.save(network, path)
    return path


def sources(folder: Path) -> dict[str, Path]:
    """The same names in files of every kind."""
    listed = list(OTHERS.values())
    texts = {
        "data.yaml": yaml.safe_dump({"names": listed}),
        "metadata.yml": yaml.safe_dump({"names": OTHERS}, allow_unicode=True),
        "names.txt": "\ufeff" + "\r\n".join(listed) + "\n\n",
        "coco.names": "\n".join(listed),
        "coco.json": json.dumps({"categories": [{"id": 9 * i + 1, "name": name} for i, name in OTHERS.items()][::-1]}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    Tiny(metadata=ultralytics_metadata() | {"names": repr(OTHERS)}).save(folder / "other.onnx")
    return {name: folder / name for name in (*texts, "other.onnx")}


def test_names_are_read_from_files_of_every_kind(tmp_path, nameless):
    assert maskprism.load(nameless).spec.names == {0: "class0", 1: "class1", 2: "class2"}
    for path in sources(tmp_path).values():
        assert read_names(path) == OTHERS, path
        assert maskprism.load(nameless, names=str(path)).spec.names == OTHERS
    for given in (OTHERS, list(OTHERS.values()), tuple(OTHERS.values())):
        assert maskprism.load(nameless, names=given).spec.names == OTHERS


def test_names_given_win_over_those_in_the_file(tmp_path):
    path = Tiny(metadata=ultralytics_metadata()).save(tmp_path / "tiny.onnx")
    assert maskprism.load(path).spec.names == NAMES
    model = maskprism.load(path, names=["x", "y", "z"])
    assert model.with_names(OTHERS).spec.names == OTHERS
    assert model.spec.names == {0: "x", 1: "y", 2: "z"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("two.txt", "a\nb", "2 classes are named; nameless.onnx has 3"),
        ("gap.txt", "a\n\nb", "line 2 is empty"),
        ("none.txt", "\n", "line 1 is empty"),
        ("latin.txt", b"caf\xe9", "is not UTF-8 text"),
        ("odd.yaml", "names: 3", "names is 3; expected a list of class names"),
        ("odd.json", "[]", "expected object, got array"),
        ("odd.csv", "a,b,c", "expected class names in a data.yaml"),
        ("bad.onnx", "text", "cannot read this file"),
    ],
)
def test_names_that_are_none_are_told(tmp_path, nameless, name, text, said):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((InputError, ModelError), match=said):
        maskprism.load(nameless, names=tmp_path / name)


def test_other_things_that_are_no_names(tmp_path, nameless):
    with pytest.raises(InputError, match="has no class names itself"):
        maskprism.load(nameless, names=nameless)
    with pytest.raises(InputError, match="there is no such file"):
        maskprism.load(nameless, names=tmp_path / "none.yaml")
    for wrong in ({1: "a", 2: "b", 3: "c"}, [["a"], "b", "c"], []):
        with pytest.raises(InputError, match=r"^names=: names is"):
            maskprism.load(nameless, names=wrong)


def test_a_data_set_of_as_many_classes_is_matched_by_index(tmp_path):
    dataset = open_dataset(coco(tmp_path, [{"category_id": 3, "segmentation": [[0, 0, 9, 0, 9, 9]]}]))
    assert dataset.names == {0: "cat", 1: "dog"}
    for nameless in ({0: "class0", 1: "class1"}, {}):
        matched = dataset.for_model(nameless)
        assert (matched.names, matched.class_ids) == (dataset.names, dataset.class_ids)
        assert "the model has no class names: class 0 of the model is taken for class 0" in matched.notices[0]
    assert dataset.for_model({0: "dog", 1: "cat"}).notices == ()
    assert dataset.for_model({0: "dog", 1: "cat"}).class_ids == {3: 1, 7: 0}
    with pytest.raises(InputError, match=r"none of its 2 classes .* is one of the 3 of the model .* with --names"):
        dataset.for_model({0: "class0", 1: "class1", 2: "class2"})


def test_a_data_set_without_names_takes_those_of_the_model(tmp_path):
    data = write_dataset(tmp_path, 2, seed=0, validation_share=0.5)
    described = yaml.safe_load(data.read_text())
    names = dict(enumerate(described.pop("names").values()))
    data.write_text(yaml.safe_dump(described | {"nc": len(names)}))
    matched = open_dataset(data).for_model(names)
    assert matched.names == names
    assert matched.notices[0].startswith("data.yaml has no class names")


def test_a_foreign_export_is_diagnosed_like_the_model_that_it_was(tmp_path, bare):
    data = write_dataset(tmp_path, 3, seed=40, validation_share=0.67)
    named, found = (
        diagnose(open_dataset(data), maskprism.load(path, conf=0.001, multi_label=True, threads=1))
        for path in ("sample", bare)
    )
    assert found.precision["predict"].ap == named.precision["predict"].ap > 0.3
    assert repr(found.budget.rows) == repr(named.budget.rows)  # NaN is NaN
    assert {row.class_name for row in found.detections} == {row.class_name for row in named.detections}
    few, *others = warnings_of(named)
    assert few.startswith("Only 2 images")
    assert others == []
    assert warnings_of(found)[1].startswith("The model has no class names: class 0 of the model is taken for")
    labels = open_labels(data, tmp_path / "images", maskprism.load(bare).spec.names)
    assert labels.names == maskprism.load("sample").spec.names
    assert labels.notices


def test_an_export_that_lost_its_names_is_compared_under_them(tmp_path, bare):
    folder = tmp_path / "images"
    write_dataset(tmp_path, 1, seed=41, validation_share=0)
    for pair in (("sample", bare), (bare, "sample")):
        found = compare(maskprism.load(pair[0]), maskprism.load(pair[1]), folder)
        assert set(found.instances["class_a"].to_pylist()) == set(found.instances["class_b"].to_pylist())
        assert not any(name.startswith("class") for name in found.instances["class_a"].to_pylist())


def test_the_option_of_every_command(tmp_path, nameless):
    files = sources(tmp_path)
    result = run("info", nameless, "--names", files["names.txt"])
    assert result.returncode == 0, result.stderr
    assert "3: 0 apple, 1 pear ü, 2 plum" in " ".join(result.stdout.split())
    says(run("info", nameless, "--names", tmp_path / "none.txt"), "none.txt: there is no such file")
