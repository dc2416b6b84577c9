"""How a command ends: its streams, its signals, unexpected errors, and what it leaves to the network."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import in_process
from maskprism._common import process
from maskprism._common.text import printable
from maskprism.datasets.scenes import draw_scene
from maskprism.errors import MaskprismError
from maskprism.models import SAMPLE_MODEL

COMMAND = [sys.executable, "-m", "maskprism"]
posix = pytest.mark.skipif(os.name == "nt", reason="signals and streams are another matter there")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    picture = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    return tmp_path / "a.png"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a line of the shell does, in which `maskprism` is this checkout."""
    python = f'"{sys.executable}" -m maskprism'
    return subprocess.run(
        ["bash", "-c", line.replace("maskprism ", f"{python} ", 1)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


@posix
def test_files_are_written_though_nobody_reads_the_output(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from maskprism._common.process import run_command\n"
        "def command():\n    print('told ' * 100_000); print('more'); Path('result').write_text('whole'); return 0\n"
        "sys.exit(run_command('maskprism', command))"
    )
    line = f'"{sys.executable}" -c "$PROGRAM" | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PROGRAM": program}
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert (tmp_path / "result").read_text() == "whole"


# --- errors that no command expects ---------------------------------------------------------------


def failing(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("the sky\nis falling"), "unexpected RuntimeError: the sky is falling; please report it at "),
        (RecursionError(), "unexpected RecursionError: RecursionError; please"),
        (MemoryError("Unable to allocate 3 GiB"), r"out of memory \(Unable to allocate 3 GiB\); give it fewer"),
        (RuntimeError("OpenCV: Insufficient memory"), "out of memory"),
    ],
)
def test_an_error_that_nobody_expects_is_one_line_and_a_traceback_in_a_file(
    error: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert process.run_command("maskprism", lambda: failing(error)) == process.FAILED
    out, line = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"maskprism: {told}.*\n", line)
    assert process.REPORT_TO in line
    (log,) = tmp_path.iterdir()
    assert str(log) in line
    assert "Traceback (most recent call last)" in log.read_text(encoding="utf-8")
    assert type(error).__name__ in log.read_text(encoding="utf-8")


def test_an_error_that_an_interrupt_left_behind_is_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    """A KeyboardInterrupt within the condition of a lock makes Python 3.13 raise "release unlocked lock"."""

    def command() -> int:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("release unlocked lock")

    assert process.run_command("maskprism", command, resumes="run it again") == process.INTERRUPTED
    assert capsys.readouterr().err == "maskprism: interrupted; run it again\n"


def test_without_room_for_a_file_the_line_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert process.report_of("maskprism", ValueError("x")).endswith(f"report it at {process.REPORT_TO}")


@posix
@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_error(redirection: str) -> None:
    done = shell(f"maskprism info --model {SAMPLE_MODEL} {redirection}")
    assert done.returncode == 0
    assert done.stderr == ""
    assert ("sha256" in done.stdout) == (">&-" not in redirection or redirection == "2>&-")


@posix
def test_with_closed_stderr_nothing_goes_to_stdout_instead(tmp_path: Path) -> None:
    done = shell(f"maskprism info --model {tmp_path}/none.onnx 2>&-")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    done = shell(f"maskprism info --model {SAMPLE_MODEL} > /dev/full")
    assert (done.returncode, done.stderr) == (1, "maskprism: No space left on device\n")


@pytest.mark.parametrize("columns", ["0", "-3", "wide", "1", "²"])
@pytest.mark.parametrize("line", ["--help", f"info --model {SAMPLE_MODEL}"])
def test_any_width_of_the_terminal(columns: str, line: str) -> None:
    done = in_process.command(*line.split(), columns=columns)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("line", ["--help", f"info --model {SAMPLE_MODEL}"])
def test_any_width_of_the_terminal_when_python_starts(line: str) -> None:
    done = shell(f"maskprism {line}", COLUMNS="²")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is Linux's")
def test_too_little_memory_is_one_line(image: Path) -> None:
    line = f"ulimit -v 400000; maskprism explain {image} --model {SAMPLE_MODEL} --out {image.parent}/out"
    done = shell(line, OPENBLAS_NUM_THREADS="1")  # with more it tells itself that it has no memory for threads
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(r"^maskprism: out of memory \(.+\); give it fewer or smaller images at once", done.stderr, re.M)


# --- Ctrl-C ---------------------------------------------------------------------------------------

ENDLESS = """
import sys
import numpy as np, onnx, onnxruntime
from onnx import TensorProto as T, helper as h
from maskprism._common.process import run_command
body = h.make_graph(
    [h.make_node("Identity", ["on"], ["still"]), h.make_node("Add", ["x", "x"], ["y"])],
    "body",
    [h.make_tensor_value_info(n, k, s) for n, k, s in (("i", T.INT64, []), ("on", T.BOOL, []), ("x", T.FLOAT, [1]))],
    [h.make_tensor_value_info(n, k, s) for n, k, s in (("still", T.BOOL, []), ("y", T.FLOAT, [1]))],
)
graph = h.make_graph(
    [h.make_node("Loop", ["", "go", "in"], ["out"], body=body)],
    "endless",
    [h.make_tensor_value_info("in", T.FLOAT, [1]), h.make_tensor_value_info("go", T.BOOL, [])],
    [h.make_tensor_value_info("out", T.FLOAT, [1])],
)
model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
def work():
    print("begun", flush=True)
    session.run(None, {"in": np.ones(1, np.float32), "go": np.array(True)})
    return 0
sys.exit(run_command("maskprism", work))
"""


@pytest.mark.study
@posix
def test_the_second_ctrl_c_ends_native_code_that_never_returns() -> None:
    pytest.importorskip("onnx", reason="onnx, which writes the model, is not installed")
    main, side = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=side, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        time.sleep(0.5)
        for _ in range(3):  # one Ctrl-C that programs in between pass on
            running.send_signal(signal.SIGINT)
            time.sleep(0.02)
        time.sleep(1)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == process.INTERRUPTED
    os.close(side)
    told = os.read(main, 4096)
    os.close(main)
    assert b"\x1b[?25h" in told  # the cursor is there again
    assert b"maskprism: interrupted twice; ended at once" in told


def write_endless_on_white(path: Path) -> Path:
    """The bundled model, in a loop without end where the image is white."""
    onnx = pytest.importorskip("onnx", reason="onnx, which writes the model, is not installed")
    h, kind = onnx.helper, onnx.TensorProto
    model = onnx.load(SAMPLE_MODEL)
    graph, out = model.graph, model.graph.output[0].name
    for node in graph.node:
        node.output[:] = [name.replace(out, "finite") if name == out else name for name in node.output]
        node.input[:] = [name.replace(out, "finite") if name == out else name for name in node.input]
    inside = [("i", kind.INT64, []), ("on", kind.BOOL, []), ("x", kind.FLOAT, None)]
    body = h.make_graph(
        [h.make_node("Identity", ["on"], ["still"]), h.make_node("Identity", ["x"], ["y"])],
        "body",
        [h.make_tensor_value_info(*one) for one in inside],
        [h.make_tensor_value_info("still", kind.BOOL, []), h.make_tensor_value_info("y", kind.FLOAT, None)],
    )
    graph.initializer.append(h.make_tensor("nearly_white", kind.FLOAT, [], [0.9]))
    graph.node.extend(
        [
            h.make_node("ReduceMean", [graph.input[0].name], ["mean"], keepdims=0),
            h.make_node("Greater", ["mean", "nearly_white"], ["is_white"]),
            h.make_node("Loop", ["", "is_white", "finite"], [out], body=body),
        ]
    )
    onnx.save(model, path)
    return path


@pytest.mark.study
@posix
@pytest.mark.parametrize("command", ["explain", "extract", "serve"])
def test_one_ctrl_c_ends_a_network_that_never_ends(command: str, tmp_path: Path) -> None:
    if command == "serve":
        pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    model = write_endless_on_white(tmp_path / "endless.onnx")
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "white.png"), np.full((320, 320, 3), 255, np.uint8))
    out = {"explain": tmp_path / "out", "extract": tmp_path / "t.parquet", "serve": None}[command]
    options = ["--port", "0"] if out is None else ["--out", out]
    line = [*COMMAND, command, tmp_path / "photos", "--model", model, *options]
    begun = {"explain": out, "extract": tmp_path / "t.parquet.parts", "serve": None}[command]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        if begun is None:
            assert "Ctrl-C stops" in running.stdout.readline()
        while begun is not None and not begun.exists():
            assert running.poll() is None
            time.sleep(0.1)
        time.sleep(1)  # the model is running
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == (0 if command == "serve" else process.INTERRUPTED), errors
    assert "Traceback" not in errors
    assert ("interrupted" in errors) == (command != "serve")


FIRST = """
import signal, sys, time
from maskprism._common.process import run_command
def work():
    signal.raise_signal(signal.SIGINT)
    time.sleep(5)
    return 0
sys.exit(run_command("maskprism", work, resumes="run it again"))
"""


def test_the_first_ctrl_c_is_left_to_the_command() -> None:
    """In a process of its own: SIGINT may mean something else where tests run."""
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=60)
    assert done.returncode == process.INTERRUPTED
    assert done.stderr == "maskprism: interrupted; run it again\n"


# --- what is printed ------------------------------------------------------------------------------


@given(st.text())
def test_printable_text_holds_no_control_or_format_characters(text: str) -> None:
    shown = printable(text)
    shown.encode()  # it is Unicode
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]", shown)
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


def test_printable_text_names_what_it_hides() -> None:
    assert printable("a\u202eb\x1b[31m\U000e0001\udcffc\n\tö") == r"a\u202eb\u001b[31m\udb40\udc01\udcffc" + "\n\tö"


def test_one_call_of_print_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        print("a.png\nmaskprism: all is well\r\tb.png: failed")
        print("note: a\nb", file=sys.stderr)
        raise MaskprismError("a\nb")

    assert process.run_command("maskprism", work) == process.FAILED
    out, err = capsys.readouterr()
    assert out == r"a.png\u000amaskprism: all is well\u000d\u0009b.png: failed" + "\n"
    assert err.splitlines() == [r"note: a\u000ab", r"maskprism: a\u000ab"]


@pytest.mark.usefixtures("undrawn")
@posix
def test_line_ends_in_names_of_files_and_classes_begin_no_line(tmp_path: Path, image: Path) -> None:
    import json

    from helpers.in_process import command as run

    odd = "a\nFORGED\rb"
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(tmp_path / "scene.png"), draw_scene(3).image)
    (tmp_path / "scene.png").rename(folder / f"{odd}.png")
    (folder / f"bad{odd}.png").write_bytes(b"")
    names = tmp_path / "names.json"
    listed = [{"id": number, "name": f"class {number}\nFORGED"} for number in range(10)]
    names.write_text(json.dumps({"categories": listed, "images": [], "annotations": []}), encoding="utf-8")
    given = ("--model", SAMPLE_MODEL, "--names", names)
    lines = [
        ("info", *given),
        ("explain", folder, *given, "--out", tmp_path / "out", "--top", 3),
        ("extract", folder, *given, "--out", tmp_path / "t.csv"),
        ("search", tmp_path / "t.csv", "--like", f"{odd}.png#0"),
        ("search", tmp_path / "t.csv", "--like", f"{odd}.png#99"),
        ("compare", SAMPLE_MODEL, SAMPLE_MODEL, "--images", folder, "--names", names),
        ("page", folder, *given, "--out", tmp_path / "page.html"),
        ("prototypes", folder, *given, "--out", tmp_path / "p", "--cards", 0, "--moved", 0),
        ("info", "--model", tmp_path / f"{odd}.onnx"),
    ]
    for line in lines:
        done = run(*line)
        assert not re.search(r"(?m)^\s*FORGED|\r", done.stdout + done.stderr), line
        named = r"\u000aFORGED" in done.stdout + done.stderr or r"\nFORGED" in done.stderr
        assert named or line[0] in ("page", "prototypes", "compare"), line


ODD = "cat\u202etac\u2028\x1b[31m\x07"


def escaped(text: str) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e]", text)
    assert r"\u202e" in text


@pytest.mark.usefixtures("undrawn")
@posix
def test_names_of_files_and_classes_cannot_write_on_the_terminal(tmp_path: Path, image: Path) -> None:
    import json

    from helpers.in_process import command as run

    folder = tmp_path / f"photos{ODD}"
    folder.mkdir()
    image.rename(folder / f"a{ODD}.png")
    (folder / f"bad{ODD}.png").write_bytes(b"")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {number} \u202e" for number in range(10)), encoding="utf-8")
    done = run("extract", folder, "--model", SAMPLE_MODEL, "--out", tmp_path / "t.csv")
    escaped(done.stdout)  # the summary names the image that failed
    done = run("explain", folder, "--model", SAMPLE_MODEL, "--out", tmp_path / "out")
    escaped(done.stderr)
    done = run("info", "--model", SAMPLE_MODEL, "--names", names)
    escaped(done.stdout)
    done = run("info", "--model", SAMPLE_MODEL, "--names", names, "--json")
    escaped(done.stdout)
    assert json.loads(done.stdout)["names"]["0"] == "class 0 \u202e"  # JSON means the same
    done = run("info", "--model", tmp_path / f"none{ODD}.onnx")
    assert done.returncode == 1
    escaped(done.stderr)
    done = run("explain", f"--none{ODD}")
    escaped(done.stderr)
