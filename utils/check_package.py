"""Is everything in the wheel and in the source distribution that belongs there, and nothing else?

python utils/check_package.py dist
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTENSION = "maskprism/core/decoding/_compiled.abi3.so"  # where the wheel is one of a platform


def main(folder: Path) -> None:
    """Compare the two archives of a folder with the files of the repository; raises SystemExit with what differs."""
    (wheel,) = folder.glob("*.whl")
    (source,) = folder.glob("*.tar.gz")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    package = {name.removeprefix("src/") for name in files if name.startswith("src/maskprism/")}

    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(source) as archive:
        in_source = {name.partition("/")[2] for name in archive.getnames()} - {"PKG-INFO"}
    told("the wheel", in_wheel, package | ({EXTENSION} if "none-any" not in wheel.name else set()))
    told("the source distribution", in_source, files)
    print(f"{wheel.name}: {len(in_wheel)} files; {source.name}: {len(in_source)} files")


def told(archive: str, found: set[str], expected: set[str]) -> None:
    """Raise SystemExit with the names that are missing, or should not be there."""
    if found != expected:
        missing, strange = sorted(expected - found), sorted(found - expected)
        sys.exit(f"{archive} lacks {len(missing)} files {missing[:9]} and has {len(strange)} too many {strange[:9]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
