"""How long a user waits before anything happens: import, help, info.

    python benchmarks/start_up.py

Baselines: `import numpy`, and an interpreter that does nothing.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

RUNS = 9
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import numpy": ["-c", "import numpy"],
    "import numpy, maskprism": ["-c", "import numpy, maskprism"],
    "import numpy, maskprism.load": ["-c", "import numpy, maskprism; maskprism.load"],
    "maskprism --help": ["-m", "maskprism", "--help"],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    for arguments in COMMANDS.values():
        seconds(arguments)  # fill the file cache
    runs = [{name: seconds(arguments) for name, arguments in COMMANDS.items()} for _ in range(RUNS)]
    table = Table(title=f"start-up, median of {RUNS} runs")
    for column in ("command", "ms", "ms more than import numpy"):
        table.add_column(column, justify="left" if column == "command" else "right")
    for name in COMMANDS:
        median = statistics.median(run[name] for run in runs)
        more = statistics.median(run[name] - run["import numpy"] for run in runs)
        table.add_row(name, f"{median * 1e3:.0f}", f"{more * 1e3:+.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
