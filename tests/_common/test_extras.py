"""Optional packages: every message names an extra that there is and that installs what is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from helpers.in_process import command
from maskprism._common.extras import _DISTRIBUTIONS, EXTRAS, called_command, installed, require
from maskprism.cli import COMMANDS
from maskprism.datasets.scenes import write_dataset
from maskprism.errors import MissingExtraError
from maskprism.models import SAMPLE_MODEL

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BARE = f"""
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(EXTRAS)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Nothing())
from maskprism.cli import main
main()
"""


def installs(extra: str) -> set[str]:
    """The packages that an extra installs."""
    found = {re.split(r"[\[<>=]", requirement)[0] for requirement in PROJECT["optional-dependencies"][extra]}
    return found | ({"torch"} if "ultralytics" in found else set())  # Ultralytics needs it


def test_the_table_is_that_of_pyproject() -> None:
    for package, extras in EXTRAS.items():
        for extra in extras:
            assert _DISTRIBUTIONS.get(package, package) in installs(extra), (package, extra)
    extras_of_the_package = PROJECT["optional-dependencies"].keys() - {"all"}
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(everything[len("maskprism[") : -1].split(",")) <= extras_of_the_package
    for extra in sorted(extras_of_the_package):
        requirements = PROJECT["optional-dependencies"][extra]
        names = {name for name, distribution in _DISTRIBUTIONS.items() if distribution in installs(extra)}
        names |= installs(extra) & set(EXTRAS)
        assert names, (extra, requirements)
        assert all(extra in EXTRAS[name] for name in names)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    write_dataset(folder / "scenes", 3, seed=5, validation_share=1.0)
    for suffix in (".pt", ".tflite", ".torchscript", ".xml"):
        (folder / f"m{suffix}").write_bytes(b"x" * 64)
    (folder / "m.bin").write_bytes(b"")
    (folder / "t.csv").write_text("image,instance,mask_1,mask_2\na.png,0,1,2\nb.png,0,2,1\n", encoding="utf-8")
    return folder


SCENES = "scenes/images/val"
LINES = {
    "atlas": ("atlas t.csv --out out", "scikit-learn", "atlas"),
    "diagnose": ("diagnose scenes/data.yaml --model {model} --tune --out out", "scipy", "tune"),
    "explain .pt": (f"explain {SCENES} --model m.pt --out out", "ultralytics", "ultralytics"),
    "extract": (f"extract {SCENES} --model {{model}} --engine ray --out t.parquet", "ray", "ray"),
    "info .pt": ("info --model m.pt", "ultralytics", "ultralytics"),
    "info .tflite": ("info --model m.tflite", "ai-edge-litert", "litert"),
    "info .torchscript": ("info --model m.torchscript", "torch", "ultralytics"),
    "info .xml": ("info --model m.xml", "openvino", "openvino"),
    "page": (f"page {SCENES} --model {{model}} --runtime openvino --out p.html", "openvino", "openvino"),
    "reduce": (f"reduce {{model}} --images {SCENES} --keep 8 --out r.onnx", "onnx", "reduce"),
    "serve": (f"serve {SCENES} --model {{model}}", "starlette", "serve"),
    "tune": ("tune {model} --data scenes/data.yaml --out t.onnx", "onnx|scipy", "tune"),
}


def bare_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process that never had any of the optional packages."""
    call = [sys.executable, "-c", BARE, *arguments]
    return subprocess.run(call, capture_output=True, text=True, timeout=120, cwd=cwd)


@pytest.fixture
def without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the optional packages can be imported, whatever was imported before."""
    for name in {*EXTRAS, *(name for name in sys.modules if name.partition(".")[0] in EXTRAS)}:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("which", LINES)
@pytest.mark.usefixtures("without_extras")
def test_a_command_in_a_bare_environment_names_its_extra(which: str, data: Path) -> None:
    line, package, extra = LINES[which]
    arguments = [part.format(model=SAMPLE_MODEL) for part in line.split()]
    # what `serve` needs is bound when its module is imported, which another test of this process may have done
    done = bare_process(*arguments, cwd=data) if which == "serve" else command(*arguments, cwd=data)
    if which == "reduce":
        alone = bare_process(*arguments, cwd=data)
        assert (alone.returncode, alone.stdout, alone.stderr) == (done.returncode, done.stdout, done.stderr)
    assert done.returncode == 1, done.stderr
    told = re.search(
        r"^maskprism: (.+) needs the package (\S+), which is not installed; "
        r"install it with: pip install 'maskprism\[(\w+)\]'$",
        done.stderr,
        re.MULTILINE,
    )
    assert told is not None, done.stderr
    assert re.fullmatch(package, told[2])
    assert told[3] == extra
    assert told[2] in installs(extra)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("package", sorted(EXTRAS))
def test_every_command_names_an_extra_that_installs_the_package(
    package: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    token = called_command.set(command)
    with pytest.raises(MissingExtraError) as caught:
        require(package, "this")
    called_command.reset(token)
    assert not installed(package)
    named = str(caught.value).rpartition("pip install ")[2]
    distribution = _DISTRIBUTIONS.get(package, package)
    if not EXTRAS[package]:
        assert named == package
        return
    extra = named.removeprefix("'maskprism[").removesuffix("]'")
    assert distribution in installs(extra)
    own: dict[str, Any] = PROJECT["optional-dependencies"]
    if command in own and distribution in installs(command):
        assert extra == command


def test_a_package_that_is_broken_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "umap.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name") as caught:
        require("umap", "this")
    assert not isinstance(caught.value, MissingExtraError)
