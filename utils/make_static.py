"""Write the page that runs models in the browser as a folder for any web server, with WebGPU: make static.

    python utils/make_static.py FOLDER

Beside what `maskprism serve --drop` serves, it holds the files of onnxruntime-web for WebGPU, from
`viewer/node_modules` (make viewer), and the page as one file.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from maskprism.server.static import OFFLINE_PAGE, drop_files, offline_page

RUNTIME = Path(__file__).parents[1] / "viewer" / "node_modules" / "onnxruntime-web" / "dist"
WEBGPU = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")


def main(folder: Path) -> None:
    """Write the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in (drop_files() | {name: RUNTIME / name for name in WEBGPU}).items():
        shutil.copyfile(path, folder / name)
    (folder / OFFLINE_PAGE).write_text(offline_page(), encoding="utf-8")
    print(f"wrote {folder}; show it with: maskprism serve --static {folder} --open")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("name the folder to write into: python utils/make_static.py FOLDER")
    main(Path(sys.argv[1]))
