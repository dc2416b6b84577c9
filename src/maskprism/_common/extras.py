"""Optional packages: which extra installs which, and one way to import them."""

from __future__ import annotations

from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from maskprism.errors import MissingExtraError

EXTRAS: dict[str, tuple[str, ...]] = {
    "ai_edge_litert": ("litert",),
    "anywidget": ("notebook",),
    "clearml": (),
    "fiftyone": (),
    "imagehash": ("labels",),
    "mlflow": (),
    "onnx": ("reduce", "tune", "train"),
    "openvino": ("openvino",),
    "pandas": (),
    "pillow_heif": ("heic",),
    "ray": ("ray",),
    "scipy": ("atlas", "compare", "tune"),
    "sklearn": ("atlas", "labels"),
    "starlette": ("serve",),
    "supervision": (),
    "tensorboard": (),
    "torch": ("ultralytics", "transformers", "train"),
    "transformers": ("transformers",),
    "ultralytics": ("ultralytics",),
    "umap": ("umap",),
    "uvicorn": ("serve",),
    "wandb": (),
}
"""The extras of pyproject.toml that install a package, by the name that is imported; without any, its own name does."""
_DISTRIBUTIONS = {
    "ai_edge_litert": "ai-edge-litert",
    "pillow_heif": "pillow-heif",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
}
"""What packages are called where they are installed, if it is another name."""

called_command: ContextVar[str] = ContextVar("called_command", default="")
"""The command of the command line that runs; its own extra is named first."""


def require(package: str, what: str, *, extra: str = "") -> Any:
    """Import an optional package, or say which extra installs it.

    Parameters
    ----------
    package
        The package or one of its modules: "scipy.optimize".
    what
        What needs it, as the subject of the message: "reading best.tflite".
    extra
        The extra to name. By default the one of the command that was called, if it installs the package, or else the
        first one that does.

    Returns
    -------
    module
        The module.

    Raises
    ------
    MissingExtraError
        If the package, or one that it needs, is not installed.
    """
    root = package.partition(".")[0]
    try:
        return import_module(package)
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if not isinstance(error, ModuleNotFoundError) or missing not in (*EXTRAS, "torchvision"):
            raise  # it is installed and broken, which installing an extra does not fix
    installing = EXTRAS[root]
    command = called_command.get()
    extra = command if command in installing else extra or next(iter(installing), "")
    raise MissingExtraError.of(what, package=_DISTRIBUTIONS.get(root, root), extra=extra)


def installed(*packages: str) -> bool:
    """Return whether all these packages are installed; nothing is imported."""
    return all(find_spec(package) is not None for package in packages)
