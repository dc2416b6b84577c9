"""Compile the decoder while the package is built; without a compiler the package is pure Python, slower and as exact.

`python hatch_build.py` compiles it in place, for work in a checkout. MASKPRISM_PURE=1 compiles nothing.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # in a checkout, without the build backend
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent
FOLDER = "maskprism/core/decoding"
LIMITED_API = "0x030B0000"  # one binary for Python 3.11 and later


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc, valid-type]
    """The step of the wheel's build that hatchling calls."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one of this platform; leave it pure where that fails."""
        if version == "editable":
            self._attempt(ROOT / "src" / FOLDER)
            return
        self._folder = tempfile.TemporaryDirectory()
        extension = self._attempt(Path(self._folder.name))
        if extension:
            build_data["pure_python"] = False
            build_data["tag"] = f"cp311-abi3-{_platform()}"
            build_data["force_include"][str(extension)] = f"{FOLDER}/{extension.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled beside the wheel."""
        if version != "editable":
            self._folder.cleanup()

    def _attempt(self, folder: Path) -> Path | None:
        reason = why_pure()
        if not reason:
            try:
                return compile_extension(folder)
            except (
                Exception,
                SystemExit,
            ) as error:  # whatever setuptools raises: the package works without it
                reason = " ".join(str(error).split()) or type(error).__name__
        self.app.display_warning(f"The decoder was not compiled, so NumPy decodes masks, slower: {reason}")
        return None


def why_pure() -> str | None:
    """Say why nothing is compiled here; None where it is."""
    if os.environ.get("MASKPRISM_PURE", "0") not in ("", "0"):
        return "MASKPRISM_PURE is set"
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this Python does not have the stable ABI"
    return None


def compile_extension(folder: Path) -> Path:
    """Compile the extension into `folder` and return its path; raises what setuptools raises where that fails."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    unix = sys.platform != "win32"
    source = ROOT / "src" / FOLDER
    extension = Extension(
        "_compiled",
        [str(source / "_compiled.c")],
        include_dirs=[str(source)],
        define_macros=[("Py_LIMITED_API", LIMITED_API)],
        extra_compile_args=["-std=c99", "-O3", "-ffp-contract=off"] if unix else ["/O2", "/fp:precise", "/std:c11"],
        py_limited_api=True,
    )
    command = build_ext(Distribution({"ext_modules": [extension]}))
    with tempfile.TemporaryDirectory(dir=folder) as built:
        command.build_lib, command.build_temp, command.force = built, built, True
        command.ensure_finalized()
        command.run()
        name = command.get_ext_filename("_compiled")
        return Path(built, name).replace(folder / name)  # whole from the first moment: another Python may import it


def _platform() -> str:
    if sys.platform == "darwin":  # the oldest macOS that the compiler builds for, not the one that runs here
        return sysconfig.get_platform().replace("-", "_").replace(".", "_")
    from packaging.tags import sys_tags

    # as hatchling does: what runs here, without a promise of other Linux systems
    return next(
        tag.platform for tag in sys_tags() if "manylinux" not in tag.platform and "musllinux" not in tag.platform
    )


if __name__ == "__main__":
    print(compile_extension(ROOT / "src" / FOLDER))  # noqa: T201
