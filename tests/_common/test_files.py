"""Files that appear whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from maskprism._common.files import write_atomically, written_together

KILLED = """
import os, signal, sys
from pathlib import Path
from maskprism._common.files import write_atomically, written_together
folder = Path(sys.argv[1])
with written_together():
    write_atomically(folder / "model.onnx", b"model")
    os.kill(os.getpid(), signal.SIGKILL)
    write_atomically(folder / "report.html", b"report")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_command_killed_between_its_files_leaves_none_that_would_be_refused(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "model.onnx").exists()
    assert not (tmp_path / "report.html").exists()


def test_files_written_together_appear_together_the_first_one_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed: list[str] = []
    replace = Path.replace

    def noted(path: Path, target: Path) -> Path:
        renamed.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noted)
    with written_together():
        write_atomically(tmp_path / "model.onnx", b"model")
        write_atomically(tmp_path / "report.html", b"report")
        assert not renamed
    assert renamed == ["report.html", "model.onnx"]


def test_an_error_between_files_written_together_leaves_none(tmp_path: Path) -> None:
    @written_together()
    def results() -> None:
        write_atomically(tmp_path / "model.onnx", b"model")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        results()
    assert list(tmp_path.iterdir()) == []
