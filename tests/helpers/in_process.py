"""Commands as a user starts them, but in this process: Python and its libraries take longer to start than most run."""

from __future__ import annotations

import io
import runpy
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from maskprism import cli
from maskprism._common import process

Done = subprocess.CompletedProcess[str]


def command(*arguments: object, cwd: Path | None = None, columns: int | str = 200) -> Done:
    """What `maskprism ARGUMENTS` prints, and its exit code."""
    return _done(cli.main, "maskprism", arguments, cwd, columns)


def script(path: Path, *arguments: object, cwd: Path | None = None, columns: int | str = 200) -> Done:
    """What `python PATH ARGUMENTS` prints, and its exit code."""
    return _done(lambda: runpy.run_path(str(path), run_name="__main__"), str(path), arguments, cwd, columns)


def says(result: Done, *texts: str, code: int = 1) -> None:
    """It failed in one clear message: the exit code, no traceback, and these texts."""
    output = result.stdout + result.stderr
    assert result.returncode == code, output
    assert "Traceback" not in output, output
    for text in texts:
        assert text in output, output


def _done(
    main: Callable[[], object], name: str, arguments: tuple[object, ...], cwd: Path | None, columns: int | str
) -> Done:
    given = [name, *map(str, arguments)]
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "argv", given)
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("NO_COLOR", "1")
        patch.setattr(process, "report_of", lambda name, error: "".join(traceback.format_exception(error)))
        if cwd is not None:
            patch.chdir(cwd)
        _warn_as_python_does()
        interrupts = signal.getsignal(signal.SIGINT)  # a command gives them up at its end
        try:
            with redirect_stdout(out), redirect_stderr(errors):
                code = _exit_code(main)
        finally:
            signal.signal(signal.SIGINT, interrupts)
    return subprocess.CompletedProcess(given, code, *(one.buffer.getvalue().decode() for one in (out, errors)))


def _exit_code(main: Callable[[], object]) -> int:
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _warn_as_python_does() -> None:
    """On stderr, with Python's filters; what the package itself should not use is an error."""
    warnings.simplefilter("default")
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.filterwarnings("error", category=DeprecationWarning, module="maskprism")
    warnings.filterwarnings("ignore", message="Cyclopts application invoked without tokens")  # only told to tests
    warnings.showwarning = _show


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=sys.stderr)
