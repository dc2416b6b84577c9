"""Fuzz the C decoder under AddressSanitizer and UndefinedBehaviorSanitizer.

    python utils/fuzz_decoder.py --cases 1000000

Random shapes, letterboxes, rules and frames; NaN and infinity; boxes outside; windows without a pixel; int8. Exits with
77 where the compiler has no sanitizers, and with 1 and the case's number where a check fails.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SANITIZERS = "-fsanitize=address,undefined,float-cast-overflow"


def main() -> int:
    """Compile tests/fuzz/decode_fuzz.c with the sanitizers and run it."""
    parser = argparse.ArgumentParser(description="Fuzz the C decoder under sanitizers.")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print("no C compiler", file=sys.stderr)
        return 77
    with tempfile.TemporaryDirectory() as folder:
        empty, program = Path(folder, "empty.c"), Path(folder, "decode_fuzz")
        empty.write_text("int main(void) { return 0; }\n", encoding="utf-8")
        flags = ["-std=c99", "-g", "-O1", "-ffp-contract=off", SANITIZERS, "-fno-sanitize-recover=all", "-o", program]
        if subprocess.run([compiler, *flags, empty], capture_output=True, check=False).returncode:
            print(f"{compiler} has no sanitizers", file=sys.stderr)
            return 77
        source = ROOT / "tests" / "fuzz" / "decode_fuzz.c"
        include = ROOT / "src" / "maskprism" / "core" / "decoding"
        subprocess.run([compiler, *flags, f"-I{include}", source, "-lm"], check=True)
        return subprocess.run([program, str(options.cases), str(options.seed)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
