"""The files around the code: the site, the hooks, and the files that tell others about the project."""

from __future__ import annotations

import itertools
import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def site() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "utils" / "site_pages.py"))


def pages_of(nav: list[Any]) -> list[str]:
    entries = [entry if isinstance(entry, dict) else {"": entry} for entry in nav]
    return [page for entry in entries for page in entry.values() if isinstance(page, str)] + [
        page for entry in entries for inner in entry.values() if isinstance(inner, list) for page in pages_of(inner)
    ]


def test_the_site_has_every_page_in_the_order_of_the_contents(site: dict[str, Any]) -> None:
    pages = [page for page in pages_of(site["complete_nav"](read("mkdocs.yml")["nav"])) if not page.startswith("http")]
    contents = (ROOT / "docs" / "contents.md").read_text(encoding="utf-8")
    linked = ["contents.md", *dict.fromkeys(re.findall(r"\(([\w-]+\.md)\)", contents))]
    of_docs = [page for page in pages if (ROOT / "docs" / page).exists()]
    assert of_docs[: len(linked)] == linked
    assert sorted(of_docs) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))
    assert {page for page in pages if page.startswith("reference/")} == {
        f"reference/{name}.md" for name in site["REFERENCE"]
    }
    assert len(pages) == len(set(pages))


def test_a_page_that_the_nav_does_not_name_stands_at_its_end(site: dict[str, Any]) -> None:
    nav = read("mkdocs.yml")["nav"]
    assert site["complete_nav"](nav) == nav
    without = [{title: inner for title, inner in entry.items() if title != "By symptom"} for entry in nav]
    assert site["complete_nav"](without)[-1] == {
        "More": sorted(next(pages_of([entry["By symptom"]]) for entry in nav if "By symptom" in entry))
    }


def test_assistants_get_every_page_once(site: dict[str, Any]) -> None:
    files = site["for_assistants"](site["complete_nav"](read("mkdocs.yml")["nav"]), "What it is.")
    for page in (ROOT / "docs").glob("*.md"):
        assert files["llms.txt"].count(f"]({page.stem}.html)") == 1
        assert files["llms-full.txt"].count(page.read_text(encoding="utf-8").strip()) == 1
    assert files["llms.txt"].startswith("# maskprism\n\n> What it is.\n")
    assert "reference/" not in files["llms.txt"]


@pytest.mark.parametrize(
    ("page", "link", "on_site"),
    [
        ("index.md", "docs/page.md", "page.md"),
        ("index.md", "docs/page.md#drag", "page.md#drag"),
        ("index.md", "docs/images/page.webp", "images/page.webp"),
        ("index.md", "visualizations/output.png", "images/output.png"),
        ("index.md", "CONTRIBUTING.md", "contributing.md"),
        ("index.md", "LICENSE", "https://github.com/maskprism/maskprism/blob/main/LICENSE"),
        ("index.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("original.md", "../visualizations/output.png", "images/output.png"),
        ("original.md", "tables.md", "tables.md"),
        ("reference/roles.md", "page.md#a", "page.md#a"),
    ],
)
def test_links_of_the_repository_lead_somewhere_on_the_site(
    site: dict[str, Any], page: str, link: str, on_site: str
) -> None:
    assert site["site_links"](f"See [this]({link}), (that)", page) == f"See [this]({on_site}), (that)"


@pytest.mark.parametrize(
    ("element", "fetches"),
    [
        ('<script src="https://cdn.example/a.js"></script>', True),
        ("<img alt=a src=http://example.org/a.png>", True),
        ('<link rel="stylesheet" href="https://fonts.example/a.css">', True),
        ('<script src="assets/a.js"></script> <a href="https://example.org">', False),
        ('<link rel="canonical" href="https://example.org/">', False),
    ],
)
def test_pages_that_fetch_from_elsewhere_are_found(site: dict[str, Any], element: str, fetches: bool) -> None:
    assert (site["FETCHED"].search(element) is not None) == fetches


def test_the_reference_names_where_things_are_defined(site: dict[str, Any]) -> None:
    assert "maskprism.analysis.instance.prototype_roles.roles" in site["public_names"]("maskprism")
    assert "maskprism.analysis.instance.prototype_roles.roles" in site["public_names"]("maskprism.analysis.instance")
    assert "maskprism.errors.InputError" in site["public_names"]("maskprism.errors")
    assert "maskprism.server.gallery.Gallery" in site["public_names"]("maskprism.server")
    page = site["reference"]("maskprism")
    assert "::: maskprism.models.load" in page
    assert "[`roles`](instance.md#maskprism.analysis.instance.prototype_roles.roles)" in page
    assert "::: maskprism.analysis" not in page


def test_hooks_run_what_make_check_runs() -> None:
    recipe = re.search(r"^check: setup\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe is not None
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    hooks = [hook for repository in read(".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]
    assert [hook["entry"] for hook in hooks] == commands
    assert all(hook["pass_filenames"] is False and hook["language"] == "system" for hook in hooks)


def test_the_lock_file_has_what_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    groups = (*extras.values(), *project["dependency-groups"].values(), project["build-system"]["requires"])
    listed = itertools.chain(project["project"]["dependencies"], *groups)
    needed = [  # no group that another includes, and no extra of the project itself
        requirement
        for requirement in listed
        if isinstance(requirement, str) and not requirement.startswith("maskprism[")
    ]
    lock = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8")
    locked = {canonical(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    names = {canonical(re.split(r"[^\w.-]", text)[0]) for text in needed}
    assert len(names) > 50
    assert names <= locked, "run: make lock"
    assert "://" not in lock


def test_the_extra_all_has_every_extra_of_users() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(everything.removeprefix("maskprism[").removesuffix("]").split(",")) == set(extras) - {"all", "train"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_a_wheel_for_macos_runs_on_the_oldest_that_it_is_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = runpy.run_path(str(ROOT / "hatch_build.py"))["_platform"]
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setenv("_PYTHON_HOST_PLATFORM", "macosx-11.0-arm64")  # as cibuildwheel says it
    assert platform() == "macosx_11_0_arm64"


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in json.loads((ROOT / "viewer" / "package.json").read_text(encoding="utf-8"))
    assert not re.search(r"^version *=", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", ["bug", "model", "feature"])
def test_issue_forms(name: str) -> None:
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    labels = [field["attributes"]["label"] for field in form["body"]]
    assert len(labels) == len(set(labels))
    assert name == "feature" or any("maskprism info" in label for label in labels)


@pytest.mark.parametrize("name", ["ci", "release"])
def test_workflows(name: str) -> None:
    """They call what is run here, too, and no step is named by a branch that may change."""
    workflow = read(f".github/workflows/{name}.yml")
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for step in steps:
        assert re.fullmatch(r"[\w./-]+@[\w./-]+", step.get("uses", "a@b"))
        if step.get("run", "").startswith("make "):
            assert re.search(rf"^{step['run'].removeprefix('make ')}:", makefile, re.MULTILINE)
    runs = [step["run"] for step in steps if "run" in step]
    assert (".ci/run" if name == "ci" else "make release-check") in runs
