"""What the documentation site has beside the pages of docs/: README and its neighbours, and the reference.

MkDocs loads this module as hooks (mkdocs.yml). Every page keeps one source: links are written for the repository, and
lead to the site's page where it has one, else to the file on GitHub.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
GITHUB = "https://github.com/maskprism/maskprism/blob/main/"
SOURCES = {
    "README.md": "index.md",
    "README.zh.md": "index.zh.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "visualizations/output.png": "images/output.png",
}
"""Files of the repository that are pages or pictures of the site."""
REFERENCE = {
    "maskprism": "maskprism",
    **{
        name.rpartition(".")[2]: f"maskprism.{name}"
        for name in (
            *(f"analysis.{room}" for room in ("instance", "prototypes", "truth", "dataset", "atlas")),
            *(f"analysis.{room}" for room in ("comparison", "reduction", "tuning", "labels")),
            *("core.preprocessing", "datasets", "datasets.scenes", "drawing.figures", "errors", "io.sources"),
            *("integrations.coco", "integrations.fiftyone", "integrations.labelme", "integrations.supervision"),
            *("integrations.training", "integrations.loggers", "server", "viewer.page", "viewer.widget"),
            *(
                "models.families.yolo",
                "models.families.yolact",
                "models.onnx.mask_branch",
                "models.options",
                "models.runtimes",
            ),
            *("models.sam", "tables.extraction", "tables.similar", "tables.stored_predictions", "tables.worker"),
        )
    },
}
"""Pages of the reference: the module of each."""
FETCHED = re.compile(r'<(?:script|img|iframe|source)[^>]+src="?https?:[^>]*>|<link[^>]+stylesheet[^>]+https?:[^>]*>')
BADGE = re.compile(r"\[?!\[[^\]]*\]\(https?://[^)]*\)(\]\([^)]*\))? ?")
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[#)\s])")


def on_config(config: MkDocsConfig) -> None:
    """Add the pages that mkdocs.yml does not name."""
    config.nav = complete_nav(config.nav or [])


def complete_nav(nav: list[Any]) -> list[Any]:
    """Give the nav with the pages of docs/ that it does not name at its end."""
    more = sorted(page.name for page in (ROOT / "docs").glob("*.md") if f"'{page.name}'" not in str(nav))
    return [*nav, {"More": more}] if more else nav


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what does not lie in docs/."""
    from mkdocs.structure.files import File

    for source, target in SOURCES.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    for name in REFERENCE:
        files.append(File.generated(config, f"reference/{name}.md", content=reference(name)))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Write the files for assistants; raise ValueError for a page that would fetch something from elsewhere."""
    for name, text in for_assistants(config.nav or [], config.site_description or "").items():
        (Path(config.site_dir) / name).write_text(text, encoding="utf-8")
    for page in Path(config.site_dir).rglob("*.html"):
        found = FETCHED.search(page.read_text(encoding="utf-8"))
        if found:
            raise ValueError(f"{page} fetches {found[0]}; expected nothing from elsewhere")


def for_assistants(nav: list[Any], description: str) -> dict[str, str]:
    """Make `llms.txt` (https://llmstxt.org), a list of all pages, and `llms-full.txt`, all of them in one file.

    Parameters
    ----------
    nav
        Of the site. The reference of the Python API and links to elsewhere are left out.
    description
        What the project is, in one sentence.

    Returns
    -------
    dict
        The text of each file.
    """
    sources = {page: ROOT / source for source, page in SOURCES.items()}
    listed, whole = [f"# maskprism\n\n> {description}"], []
    for entry in nav:
        ((title, inner),) = entry.items()
        pages = (
            {title: inner} if isinstance(inner, str) else {name: page for one in inner for name, page in one.items()}
        )
        kept = {name: page for name, page in pages.items() if not page.startswith(("reference/", "http"))}
        if kept:
            rows = "\n".join(f"- [{name}]({page.removesuffix('.md')}.html)" for name, page in kept.items())
            listed.append(rows if isinstance(inner, str) else f"## {title}\n\n{rows}")
            whole += [sources.get(page, ROOT / "docs" / page).read_text(encoding="utf-8") for page in kept.values()]
    return {"llms.txt": "\n\n".join(listed) + "\n", "llms-full.txt": "\n\n".join(text.strip() for text in whole) + "\n"}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The links of the repository become links of the site; badges, which would be fetched from elsewhere, go."""
    return site_links(BADGE.sub("", markdown), page.file.src_uri)


def site_links(markdown: str, page: str) -> str:
    """Markdown with its links to files as links to pages of the site, or to GitHub.

    page: where it is on the site, such as `index.md`.
    """
    source = next((name for name, target in SOURCES.items() if target == page), f"docs/{page}")

    def moved(found: re.Match[str]) -> str:
        if "://" in found[1] or found[1].startswith("mailto:"):
            return found[1]
        path = os.path.normpath((PurePosixPath(source).parent / found[1]).as_posix())
        target = SOURCES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if target is None:
            return GITHUB + path
        return os.path.relpath(target, PurePosixPath(page).parent)

    return LINK.sub(moved, markdown)


def reference(page: str) -> str:
    """A page of the reference: what a module is about, then its public names, each on one page only."""
    module = REFERENCE[page]
    pages = {name: other for other, its in REFERENCE.items() if other != "maskprism" for name in public_names(its)}
    names = public_names(module)
    here = [name for name in names if pages.get(name, page) == page]
    elsewhere = [f"[`{name.rpartition('.')[2]}`]({pages[name]}.md#{name})" for name in names if name not in here]
    parts = [f"# {module}", f"::: {module}\n    options:\n      members: false\n      show_root_heading: false"]
    if elsewhere:
        parts.append(f"Exported here, too, and described with what belongs to them: {', '.join(elsewhere)}.")
    return "\n\n".join([*parts, *(f"::: {name}" for name in here)])


def public_names(module: str) -> list[str]:
    """What a module exports, by the place where each is defined: `__all__`, or else everything with a docstring."""
    tree = ast.parse(source_of(module))
    assigned = {
        target.id: statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    if "_HOMES" in assigned:
        return [f"{module}.{home}.{name}" for name, home in sorted(ast.literal_eval(assigned["_HOMES"]).items())]
    homes = {
        alias.asname or alias.name: f"{item.module}.{alias.name}"
        for item in tree.body
        if isinstance(item, ast.ImportFrom)
        for alias in item.names
    }
    again = [
        f"{item.module}.{alias.name}"
        for item in tree.body
        if isinstance(item, ast.ImportFrom)
        for alias in item.names
        if alias.asname == alias.name
    ]
    if "__all__" in assigned:
        return [homes.get(name, f"{module}.{name}") for name in ast.literal_eval(assigned["__all__"])]
    defined = [item for item in tree.body if isinstance(item, ast.FunctionDef | ast.ClassDef)]
    public = [item.name for item in defined if item.name[0] != "_" and ast.get_docstring(item)]
    return [f"{module}.{name}" for name in public] + again


def source_of(module: str) -> str:
    """The source of a module, which is not imported: the site needs none of what the package needs."""
    path = ROOT / "src" / Path(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
