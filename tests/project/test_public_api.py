"""The names that users import, and what importing them costs."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import maskprism
from maskprism import errors

NAMES = {
    "Decomposition",
    "Edit",
    "Instance",
    "Letterbox",
    "MaskRule",
    "MaskprismError",
    "Model",
    "ModelSpec",
    "Prediction",
    "RULES",
    "__version__",
    "compare",
    "diagnose",
    "explain",
    "extract",
    "load",
    "open_dataset",
    "read_image",
    "tune",
}


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after running some code."""
    found = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {name.split(".")[0] for name in found.stdout.split()} | set(found.stdout.split())


def test_the_names_of_the_package():
    assert set(maskprism.__all__) >= NAMES
    assert len(maskprism.__all__) == len(set(maskprism.__all__))
    assert set(dir(maskprism)) >= NAMES
    assert maskprism.__version__ == version("maskprism")


@pytest.mark.parametrize("name", maskprism.__all__)
def test_every_name_can_be_imported(name):
    thing = getattr(maskprism, name)
    assert thing is not None
    if name in maskprism._HOMES:
        assert thing is getattr(import_module(f"maskprism.{maskprism._HOMES[name]}"), name)


def submodules() -> list[str]:
    """All public modules below the package, as attributes of it."""
    root = Path(maskprism.__file__).parent
    paths = [path.relative_to(root).with_suffix("") for path in root.rglob("*.py")]
    names = sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)
    private = re.compile(r"(.*\.)?_.*|cli\..*|models\.runtimes\.products")  # the last is a part of its runtime
    return [name for name in names if not private.fullmatch(name)]


def test_every_module_is_there_without_an_import_of_its_own():
    named = (
        "integrations.fiftyone.to_fiftyone",
        "drawing.figures.save",
        "analysis.truth.labels",
        "tables.extraction.extract",
    )
    code = "import maskprism\n" + "".join(f"maskprism.{name}\n" for name in [*named, *submodules()])
    modules_after(code)
    for name in submodules():
        package, _, own = f"maskprism.{name}".rpartition(".")
        assert own in dir(import_module(package))
    assert {"analysis", "drawing", "integrations", "load"} <= set(dir(maskprism))
    assert not [name for name in dir(maskprism) if name.startswith("_") and name != "__version__"]
    with pytest.raises(AttributeError, match=r"module 'maskprism.drawing' has no attribute 'figure'"):
        maskprism.drawing.figure  # noqa: B018


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'maskprism' has no attribute 'Prism'"):
        maskprism.Prism  # noqa: B018


def test_importing_the_package_is_light():
    heavy = {"cv2", "numpy", "matplotlib", "pyarrow", "onnxruntime", "torch", "PIL", "openvino", "pandas", "rich"}
    assert not modules_after("import maskprism") & heavy


def test_loading_a_model_pulls_in_no_pictures_and_no_tables():
    held = modules_after("from maskprism import load, read_image, Prediction, Edit, Decomposition")
    assert "maskprism.models" in held
    heavy = {"matplotlib", "pyarrow", "torch", "ultralytics", "openvino", "ai_edge_litert", "onnxruntime", "PIL"}
    assert not held & heavy


@pytest.mark.parametrize("name", ["InputError", "ImageError", "ModelError", "TableError", "MissingExtraError"])
def test_every_error_is_one_that_the_command_line_catches(name):
    assert issubclass(getattr(errors, name), maskprism.MaskprismError)


def test_errors_are_also_those_of_python():
    assert issubclass(errors.InputError, ValueError)
    error = errors.MissingExtraError.of("drawing", package="plotter", extra="plots")
    assert isinstance(error, ImportError)
    assert str(error) == (
        "drawing needs the package plotter, which is not installed; install it with: pip install 'maskprism[plots]'"
    )
