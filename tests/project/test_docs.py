"""Everything the documentation shows runs: Python blocks, console lines, links and pictures.

What runs code has the marker `docs`, for `make test-docs`: it is about the pages, and long.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import cv2
import pytest
import yaml

from helpers import in_process
from helpers.tiny_models import Tiny, ultralytics_metadata
from helpers.tuned import with_little_effort
from helpers.undrawn import without_drawing
from maskprism.cli import app
from maskprism.datasets import scenes

ROOT = Path(__file__).resolve().parents[2]
READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
PAGES = [*READMES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Lines that set things up from the internet, or that other tests or `make walk` run.
ELSEWHERE = (
    *("pip install", "git clone", "make ", "cd ", "python utils/", "python benchmarks/", "python -m pytest"),
    "maskprism serve",  # goes on until it is stopped
)
READ_RESULTS = ("atlas.md", "tables.md", "search.md")  # their Python blocks read what their console lines write


drawn_once = cache(scenes.draw_scene)  # pages draw the same scenes


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def console_lines(page: Path) -> list[str]:
    """The commands of a page that run here; a user's own best.pt needs PyTorch, and `make walk` runs its lines."""
    lines = "\n".join(blocks(page, "console")).replace("\\\n", " ").splitlines()
    shown = [line for line in lines if line.startswith("$ ") and not line[2:].startswith(ELSEWHERE)]
    return [line for line in shown if "best.pt" not in line]


def only_as_in_the_readme(page: Path) -> bool:
    """Whether README has all commands of the page, in their order, so that they need not run again."""
    readme = iter(console_lines(PAGES[0]))
    return page != PAGES[0] and all(line in readme for line in console_lines(page))


@pytest.fixture
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the documentation names, the model being a tiny one."""
    Tiny(prototypes=32, metadata=ultralytics_metadata()).save(tmp_path / "yolov8n-seg.onnx")
    Tiny(prototypes=32, metadata=ultralytics_metadata()).save(tmp_path / "int8.onnx")
    Tiny(prototypes=32).save(tmp_path / "foreign.onnx")
    (tmp_path / "names.txt").write_text("cat\ndog\nfish\n")
    image = cv2.resize(scenes.draw_scene(0).image, (320, 240))
    for name in ("photo.jpg", "photos/one.jpg", "photos/more/two.jpg", "data/one.jpg", "data/two.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        cv2.imwrite(str(tmp_path / name), image)
    for name in ("src", "extract_specific_feature.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scenes, "draw_scene", drawn_once)
    with_little_effort(monkeypatch)
    without_drawing(monkeypatch)
    return tmp_path


@pytest.mark.docs
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, playground: Path) -> None:
    """In one script per page, so that later blocks may use the names of earlier ones."""
    if page.name in READ_RESULTS:
        run_console_lines(page, playground)
    code = "\n".join(block for block in blocks(page, "python") if "import ray" not in block)
    if "ProcessPoolExecutor" in code:  # -c, not a file: processes that a block starts must not run the page again
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=playground, capture_output=True, text=True, timeout=120
        )
    else:
        (playground / "page.py").write_text(code, encoding="utf-8")
        result = in_process.script(playground / "page.py", cwd=playground)
    assert result.returncode == 0, f"{page.name}:\n{result.stderr}"


@pytest.mark.docs
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in READ_RESULTS and not only_as_in_the_readme(page)],
    ids=lambda page: page.name,
)
def test_console_lines_run(page: Path, playground: Path) -> None:
    run_console_lines(page, playground)


def run_console_lines(page: Path, playground: Path) -> None:
    for line in console_lines(page):
        command = shlex.split(line[2:], comments=True)
        if command[0] == "maskprism":
            result = in_process.command(*command[1:], cwd=playground)
        elif command[:2] == ["python", "-c"]:
            (playground / "line.py").write_text(command[2], encoding="utf-8")
            result = in_process.script(playground / "line.py", *command[3:], cwd=playground)
        elif command[0] == "python":
            result = in_process.script(playground / command[1], *command[2:], cwd=playground)
        else:
            continue
        assert result.returncode == 0, f"{page.name}: {line}\n{result.stdout}{result.stderr}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"], ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


def test_every_page_is_reachable_from_the_readme() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for page in PAGES[3:]:
        assert f"{page.name})" in text, f"no page links to {page.name}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "cli.md"], ids=lambda page: page.name)
def test_every_command_is_a_call(page: Path) -> None:
    """Blocks that no test runs, too: they name commands and options that exist."""
    text = "\n".join(
        block for language, block in FENCE.findall(page.read_text(encoding="utf-8")) if language != "python"
    )
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True) if "maskprism " in line else []
        if words[:1] == ["maskprism"] and words[1:2] != ["--install-completion"]:
            words = words[: next((i for i, word in enumerate(words) if word in ("|", "&&", "||", ">")), len(words))]
            app.parse_args(words[1:], exit_on_error=False, print_error=False)


def test_the_readmes_have_the_same_commands() -> None:
    english, chinese = (blocks_without_comments(page) for page in READMES)
    assert english == chinese
    assert len(english) > 8


def blocks_without_comments(page: Path) -> list[tuple[str, str]]:
    """Every block with its language, without what stands behind a number sign."""
    return [
        (language, re.sub(r" +#.*", "", block)) for language, block in FENCE.findall(page.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_ci_runs_the_commands_of_the_first_screen(page: Path) -> None:
    marker = "<!-- install and run, set up and test -->"
    first_screen = "\n".join(page.read_text(encoding="utf-8").splitlines()[:25])
    block = first_screen.split(marker)[1].split("```")[1].strip().splitlines()
    assert block == ["pip install . && maskprism demo", "make setup && make test"]
    assert marker in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_version_is_that_of_the_changelog_and_the_citation() -> None:
    import maskprism

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[([^]]+)\](?: - (\d{4}-\d\d-\d\d))?$", changelog, re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert releases[0] == ("Unreleased", "")
    assert releases[1] == (maskprism.__version__, str(citation["date-released"]))
    assert citation["version"] == maskprism.__version__
    assert all(date for name, date in releases[1:])
    assert set(re.findall(r"^### (.*)$", changelog, re.MULTILINE)) <= {"Added", "Changed", "Removed", "Fixed"}
