"""What all commands share: options, help on one screen, JSON, quiet, exit codes, completion."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from cyclopts.argument import Argument

from helpers import in_process
from helpers.tiny_models import Tiny, ultralytics_metadata
from helpers.tuned import with_little_effort
from helpers.undrawn import without_drawing
from maskprism import cli
from maskprism._common.extras import called_command
from maskprism._common.text import json_text
from maskprism.cli.options import Table
from maskprism.cli.output import EXIT_CODES, Bar, Outcome, Output, command, print_json
from maskprism.cli.sample_story import DemoResult
from maskprism.datasets.scenes import write_dataset
from maskprism.datasets.visit import Failure
from maskprism.models import load
from maskprism.reports.manifest import ResultManifest, write_manifest
from maskprism.tables.extraction import extract

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = list(cli.COMMANDS)
WITHOUT_MODEL = {"search", "atlas", "report"}
OVER_IMAGES = {
    *("predict", "explain", "page", "basis", "prototypes", "diagnose", "labels", "compare", "extract", "reduce", "tune")
}
LINES = {
    "info": "info m.onnx",
    "explain": "explain images broken --out e --model m.onnx",
    "predict": "predict images --out q --format coco --model m.onnx",
    "extract": "extract images --out t.csv --model m.onnx --overwrite",
    "atlas": "atlas s.csv --out a",
    "search": "search s.csv --like 'scene_000001.png#0'",
    "page": "page images broken --out p.html --model m.onnx",
    "basis": "basis images broken --out b --model m.onnx --pictures 1",
    "prototypes": "prototypes images broken --out c --model m.onnx --cards 1 --moved 1",
    "diagnose": "diagnose scenes/data.yaml --model sample --out g --limit 2",
    "labels": "labels scenes/data.yaml --model sample --out l --limit 2",
    "compare": "compare m.onnx m.onnx --images images --out d",
    "tune": "tune sample --data scenes/data.yaml --out t.onnx --folds 3 --force --overwrite",
    "report": "report results --out results/index.html",
    "reduce": "reduce m.onnx --images images --keep 7 --out r.onnx --overwrite",
    "filmstrip": "filmstrip m.onnx --image images/scene_000001.png --out f.png",
    "demo": "demo",
}
"""Lines that make the tests of the outcome short; a command without one is called as its example says."""
KNOWN = {*LINES, "serve"}
DETECTING = KNOWN - {"info", "demo"} - WITHOUT_MODEL
# Which of these commands have an option that several have; what holds for every command: `test_options_come_together`.
SHARED: dict[str, set[str]] = {
    "--model": KNOWN - {"compare", "filmstrip", "demo", "diagnose"} - WITHOUT_MODEL,
    "--out": KNOWN - {"info", "serve", "search"},
    "--limit": OVER_IMAGES,
    "--seed": {"explain", "tune", "atlas", "labels"},
    "--json": KNOWN,
    "--quiet": KNOWN,
    "--split": {"diagnose", "reduce", "tune"},
    "--data": {"page", "serve", "compare", "atlas"},
    "--crowds": {"diagnose", "labels", "reduce", "tune", "page", "serve", "compare", "atlas"},
    "--overwrite": KNOWN - {"info", "serve", "search"},
    **dict.fromkeys(
        ("--runtime", "--layout", "--rule", "--imgsz", "--names", "--correction", "--device", "--precision"),
        KNOWN - {"demo"} - WITHOUT_MODEL,
    ),
    **dict.fromkeys(("--conf", "--iou", "--max-det", "--classes"), DETECTING),
}
OWN_WORDS = {"--out", "--overwrite"}
"""What is written is another thing in each command, and so are the words for it."""
OTHER_MEANING = {
    *(("serve", "--split"), ("atlas", "--split"), ("labels", "--split"), ("tune", "--data"), ("diagnose", "--model")),
}
"""By default all splits, for it only looks up the labels of images that are there, or all where its help says so; the
data set itself; several models."""


class Ended(NamedTuple):
    """How a call of the command ended."""

    code: int
    out: str
    err: str

    def answer(self) -> Any:
        """stdout as JSON, strictly."""

        def refuse(constant: str) -> None:
            raise ValueError(f"{constant} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


Call = Callable[..., Ended]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, a table, two models of one model and one of another."""
    folder = tmp_path_factory.mktemp("work")
    write_dataset(folder / "scenes", 3, validation_share=1)
    for name, tiny in {"m": Tiny(metadata=ultralytics_metadata()), "other": Tiny(prototypes=9)}.items():
        tiny.save(folder / f"{name}.onnx")
    (folder / "images").mkdir()
    for image in (folder / "scenes" / "images" / "val").iterdir():
        shutil.copy(image, folder / "images")
    extract(folder / "images", load(folder / "m.onnx"), folder / "s.csv")
    for like, name in {"m.onnx": "best.onnx", "images/scene_000001.png": "photo.png", "s.csv": "table.csv"}.items():
        shutil.copy(folder / like, folder / name)  # as the examples of commands call them
    shutil.copytree(folder / "images", folder / "photos")
    (folder / "results").mkdir()
    write_manifest(folder / "results", ResultManifest(command="basis", about="prototypes"))
    return folder


@pytest.fixture
def call(work: Path) -> Call:
    """Call the command as its users do, but in this process."""

    def run(line: str, columns: int = 200) -> Ended:
        done = in_process.command(*shlex.split(line), cwd=work, columns=columns)
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


# --- options


@cache
def options_of(name: str) -> dict[str, Argument]:
    found = {}
    for argument in cli.app[name].assemble_argument_collection(parse_docstring=True):
        for spelling in argument.names:
            if spelling.startswith("--") and argument.show:
                found[spelling] = argument
    return found


def test_commands_have_the_options_they_should() -> None:
    options = {name: set(options_of(name)) for name in KNOWN}
    for option, expected in SHARED.items():
        found = {name for name in KNOWN if option in options[name] and (name, option) not in OTHER_MEANING}
        assert found == expected, option


@pytest.mark.parametrize("name", COMMANDS)
def test_options_come_together(name: str) -> None:
    options = set(options_of(name))
    assert {"--json", "--quiet"} <= options
    assert ("--out" in options) == ("--overwrite" in options)
    for group in ({"--runtime", "--layout", "--rule", "--imgsz", "--names"}, {"--conf", "--iou", "--max-det"}):
        assert options & group in (set(), group)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_calls(name: str) -> None:
    assert len(set(cli.COMMANDS[name].examples)) == 2
    for example in cli.COMMANDS[name].examples:
        function, bound, _ = cli.app.parse_args(example, exit_on_error=False, print_error=False)
        assert function.__name__ == name
        bound.apply_defaults()


@pytest.mark.parametrize("option", SHARED)
def test_an_option_is_the_same_everywhere(option: str) -> None:
    every = {name: options_of(name) for name in COMMANDS}
    arguments = [
        every[name][option] for name in COMMANDS if option in every[name] and (name, option) not in OTHER_MEANING
    ]
    assert all(argument.parameter.help for argument in arguments)
    if option in OWN_WORDS:
        hints = {Path, Path | None, Table.__origin__}  # a table may also be a URI
        assert {argument.hint for argument in arguments} <= hints or option == "--overwrite"
        assert len({argument.is_flag() for argument in arguments}) == 1
        return
    assert len({argument.parameter.help for argument in arguments}) == 1
    assert len({repr(argument.hint) for argument in arguments}) == 1
    assert len({repr(argument.field_info.default) for argument in arguments}) == 1


def test_every_option_is_explained() -> None:
    for name in COMMANDS:
        for option, argument in options_of(name).items():
            assert argument.parameter.help, f"{name} {option}"


@pytest.mark.parametrize("name", COMMANDS)
def test_options_say_what_holds_without_them(name: str) -> None:
    for option, argument in options_of(name).items():
        if option.startswith("--") and not argument.required and argument.field_info.default is None:
            assert re.search("default|needed", argument.parameter.help or "", re.IGNORECASE), option


# --- help


def test_the_whole_fits_one_screen(call: Call) -> None:
    shown = call("--help", columns=80).out
    lines = shown.splitlines()
    assert 24 <= len(lines) <= 40
    assert max(map(len, lines)) <= 80
    titles = re.findall(r"^╭─ (.*?) ─+╮$", shown, re.MULTILINE)
    assert titles == [*cli.GROUPS, "Options"]
    rows = re.findall(r"^│ (\w+) +(.*?) +│$", shown, re.MULTILINE)
    assert [name for name, _ in rows] == COMMANDS
    assert all(text.endswith(".") for _, text in rows)  # each on one line
    (codes,) = re.findall(r"^Exit codes: (.*)$", shown, re.MULTILINE)
    assert [int(one.split()[0]) for one in codes.split(", ")] == [*EXIT_CODES]


TOY = '''
"""A command that adds."""

from maskprism.cli.output import Outcome, Output, command


@command(group="Data", order=15, page="tables.md", examples=("toy 1 2", "toy 3 4"), answer="`sum`")
def toy(first: int, second: int, /, *, output: Output = Output()) -> Outcome:
    """Add two numbers."""
    print(first + second)
    return Outcome({"sum": first + second})
'''


def test_a_command_is_added_by_its_module_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy.py").write_text(TOY, encoding="utf-8")
    (tmp_path / "helper.py").write_text("def helper(): ...\n", encoding="utf-8")
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    for name in ("toy", "helper"):
        monkeypatch.setitem(sys.modules, f"maskprism.cli.{name}", None)  # so that it is forgotten in the end
        monkeypatch.delitem(sys.modules, f"maskprism.cli.{name}")
    app = cli.make_app()
    assert app(["toy", "1", "2", "--json", "--quiet"], result_action="return_value") == 0
    assert json.loads(capsys.readouterr().out) == {"sum": 3}
    app(["--help"], result_action="return_value")
    assert re.findall(r"^│ (\w+) +\w.*│$", capsys.readouterr().out, re.MULTILINE) == [
        *COMMANDS[: COMMANDS.index("extract") + 1],
        "toy",
        *COMMANDS[COMMANDS.index("extract") + 1 :],
    ]
    reference = runpy.run_path(str(ROOT / "utils" / "make_docs.py"))["cli_reference"]()
    assert "\n## maskprism toy\n" in reference
    assert "\n| `toy` | `sum` |\n" in reference


# --- the outcome as JSON


def documented(name: str) -> set[str]:
    """The keys that a command declares; of files whose content is promised, the file's."""
    return set(re.findall(r"`(\w+)`", cli.COMMANDS[name].answer))


CONTENT = {
    "basis": "b/basis.json",
    "atlas": "a/atlas.json",
    "diagnose": "g/summary.json",
    "compare": "d/comparison.json",
    "tune": "t.tune.json",
    "reduce": "r.json",
}


def no_work(out: Path, on_step: Callable[[str], None]) -> DemoResult:
    """In place of `run_demo`, which takes long, and which other tests call."""
    on_step("a step")
    (out / "pictures" / "one").mkdir(parents=True)
    return DemoResult(out, out / "pictures", out, out, out, out, out, out, out, instances=3)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "serve"])
def test_json_is_what_the_documentation_says(
    name: str, call: Call, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskprism.cli.sample_story.run_demo", no_work)
    with_little_effort(monkeypatch)
    without_drawing(monkeypatch)
    (work / "broken").mkdir(exist_ok=True)
    (work / "broken" / "b.png").write_bytes(b"no image")
    line = LINES.get(name, cli.COMMANDS[name].examples[0])
    ended = call(f"{line} --json --quiet")
    assert ended.code == 0, ended.err
    answer = ended.answer()
    if name in CONTENT:
        promised = {"files", "failures", *json.loads((work / CONTENT[name]).read_text(encoding="utf-8"))} - {"failed"}
    else:
        promised = documented(name)
    nested = {"image", "note", "files"} if name == "explain" else set()
    assert set(answer) == promised - nested
    if name == "explain":
        assert {key for one in answer["explained"] for key in one} == nested
    if " broken " in line:  # failures are printed, however quiet
        (failure,) = answer["failures"]
        assert failure["image"] == "b.png"
        assert "not an image" in failure["why"]
        (said,) = ended.err.splitlines()
        assert said.startswith("b.png: failed: not an image")
    else:
        assert ended.err == ""
    for path in written(answer):
        assert (work / path).exists(), path


def written(answer: Any) -> Iterable[str]:
    """The paths in an answer."""
    for key in ("files", "table", "images_table", "settings", "page", "scenes", "pictures", "histograms", "report"):
        value = answer.get(key)
        yield from value if isinstance(value, list) else [value] if value else []
    for one in answer.get("explained", ()):
        yield from one["files"]


def test_without_json_the_outcome_is_text_on_stdout(call: Call) -> None:
    plain, quiet = (
        call("page images --out p.html --overwrite --model m.onnx"),
        call("page images --out p.html --overwrite --model m.onnx --quiet"),
    )
    assert plain.out == quiet.out
    assert plain.out.startswith("3 images in p.html")
    assert "predicting" in plain.err
    assert quiet.err == ""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently")
def test_the_server_tells_its_address_as_json_and_goes_on(work: Path) -> None:
    line = ["serve", "images", "--model", "m.onnx", "--port", "0", "--json", "--quiet"]
    call = [sys.executable, "-m", "maskprism", *line]
    pipe = subprocess.PIPE
    with subprocess.Popen(call, cwd=work, stdout=pipe, stderr=pipe, text=True) as server:
        assert server.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            told = server.stdout.readline()
            assert told, server.communicate()
            text += told
        server.send_signal(signal.SIGINT)
        rest, err = server.communicate(timeout=60)
    assert (server.returncode, rest, err) == (0, "", "")
    answer = json.loads(text)
    assert set(answer) == documented("serve")
    assert (answer["folder"], answer["images"]) == ("images", 3)
    assert answer["url"].startswith("http://127.0.0.1:")


def test_an_error_is_told_and_leaves_stdout_empty(call: Call) -> None:
    ended = call("page nowhere --model m.onnx --out new.html --json --quiet")
    assert (ended.code, ended.out) == (1, "")
    assert "nowhere: there is no such file or folder" in ended.err


def test_json_knows_only_what_json_knows() -> None:
    value = {
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "count": np.int64(3),
        "row": np.array([1.5, np.nan]),
        "path": Path("a/ü"),
        "odd": Path(os.fsdecode(b"\xff.png")),
        1: (True, None),
    }
    assert Ended(0, json_text(value), "").answer() == {
        "nan": None,
        "inf": None,
        "count": 3,
        "row": [1.5, None],
        "path": str(Path("a/ü")),
        "odd": "\\udcff.png",
        "1": [True, None],
    }


def test_json_is_utf8_whatever_the_terminal_speaks() -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_json({"image": "ü.png"}, terminal)
    assert isinstance(terminal.buffer, io.BytesIO)
    assert terminal.buffer.getvalue().decode("utf-8") == '{\n  "image": "ü.png"\n}\n'


def test_what_libraries_print_is_no_part_of_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    @command(group="Data", order=0, page="scripts.md", examples=("talks", "talks --json"), answer="`done`")
    def talks(*, output: Output = Output()) -> Outcome:
        print("from a library")
        return Outcome({"done": True}, 3)

    assert talks(output=Output(json=True)) == 3
    assert capsys.readouterr() == ('{\n  "done": true\n}\n', "from a library\n")
    assert talks(output=Output(json=True, quiet=True)) == 3
    assert capsys.readouterr() == ('{\n  "done": true\n}\n', "")
    assert talks() == talks(output=Output(quiet=True)) == 3
    assert capsys.readouterr() == ("from a library\n" * 2, "")


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_leaves_failures(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=quiet)
    output.note("note: by the way")
    with output.bar("working", 2) as bar:
        bar.note("that one is odd")
        bar.at(1, 2, Failure("a.png", "too [small]"))
        bar.step()
    assert isinstance(bar, Bar)
    assert bar.failures == [Failure("a.png", "too [small]")]
    out, err = capsys.readouterr()
    assert out == ""
    assert "a.png: failed: too [small]" in err
    assert ("by the way" in err, "is odd" in err, "working" in err) == (not quiet, not quiet, not quiet)


# --- exit codes


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("info m.onnx", 0),
        ("info --model m.onnx", 0),
        ("--version", 0),
        ("info missing.onnx", 1),
        ("explain nowhere --model sample --out e", 1),
        ("explain images --model m.onnx --out e --limit 0", 1),
        ("nothing", 2),
        ("info m.onnx --wrong", 2),
        ("info m.onnx --imgsz many", 2),
        ("extract images --model m.onnx", 2),
        ("info", 1),
        ("compare m.onnx m.onnx --images images", 0),
        ("compare m.onnx other.onnx --images images --max-unmatched 1", 3),
    ],
)
def test_exit_codes(line: str, code: int, call: Call) -> None:
    ended = call(line)
    assert ended.code == code, ended.out + ended.err
    assert bool(ended.err.strip()) == (code in (1, 2)) or "comparing" in ended.err
    assert "Traceback" not in ended.err


def test_an_interruption_is_130(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("maskprism.models.load", interrupted)
    assert call("info m.onnx") == (130, "", "maskprism: interrupted\n")
    line = "extract images --model m.onnx --out t.csv"
    assert call(line) == (130, "", "maskprism: interrupted; the same command goes on where it stopped\n")


@pytest.mark.skipif(os.name == "nt", reason="pipes break differently")
@pytest.mark.parametrize("line", ["--help", "info sample", "info sample --json --quiet"])
def test_a_reader_that_goes_away_is_no_news(line: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "maskprism", *line.split()], stdout=write, stderr=subprocess.PIPE, timeout=60
        )
    finally:
        os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")


# --- completion


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the shells read, written by the command."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        for name in ("ZSH", "ZSH_CUSTOM"):
            patch.delenv(name, raising=False)
        for shell in ("bash", "zsh", "fish"):
            assert in_process.command("--install-completion", "--shell", shell).returncode == 0
    assert str(home) in (home / ".bashrc").read_text(encoding="utf-8")
    return {
        "bash": home / ".local/share/bash-completion/completions/maskprism",
        "zsh": home / ".zsh/completions/_cyclopts_maskprism",
        "fish": home / ".config/fish/completions/maskprism.fish",
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_read_their_completion(shell: str, scripts: dict[str, Path]) -> None:
    text = scripts[shell].read_text(encoding="utf-8")
    assert all(name in text for name in COMMANDS)
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    subprocess.run([shell, "-n", scripts[shell]], check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_choices_and_paths(scripts: dict[str, Path], work: Path) -> None:
    expected = {
        "di": {"diagnose"},
        "extract --li": {"--limit"},
        "info --runtime o": {"onnxruntime", "openvino"},
        "explain images/scene_000001.png imag": {"images"},
        "extract imag": {"images"},
        "compare m.onnx other.onnx --images ima": {"images"},
        "extract images --model oth": {"other.onnx"},
        "info oth": {"other.onnx"},
    }
    drive = 'COMP_WORDS=(maskprism "$@"); COMP_CWORD=$#; _maskprism; echo "${COMPREPLY[@]}"'
    lines = [
        f"source {shlex.quote(str(scripts['bash']))}",
        f"try() {{ {drive}; }}",
        *(f"try {line}" for line in expected),
    ]
    told = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=work, check=True, capture_output=True, text=True)
    assert [set(line.split()) for line in told.stdout.splitlines()] == list(expected.values())


def test_a_command_that_has_ended_is_not_the_one_that_needs_an_extra() -> None:
    assert in_process.command("info", "sample").returncode == 0
    assert called_command.get() == ""
