"""maskprism serve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from maskprism.cli.options import Crowds, DetectionOptions, Labels, ModelFile, ReadingOptions, labels_for, load_model
from maskprism.cli.output import Outcome, Output, command, print_json

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MAX_WORKERS = 4


@command(
    group="Visualise",
    order=30,
    page="server.md",
    examples=("serve photos --model best.onnx", "serve photos --model best.onnx --data data.yaml --open"),
    answer="as soon as it listens: `url`, `folder`, `images`, `left_out`",
)
def serve(
    folder: Path | None = None,
    /,
    *,
    images: Path | None = None,
    model: ModelFile = None,
    data: Labels = None,
    labels: Path | None = None,
    crowds: Crowds = "left-out",
    split: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_host: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    cache_mb: int = 256,
    max_upload_mb: int = 32,
    max_upload_megapixels: int = 40,
    max_upload_seconds: int = 60,
    static: Path | None = None,
    drop: Annotated[bool, Parameter(negative=())] = False,
    open_browser: Annotated[bool, Parameter(name="--open", negative=())] = False,
    reading: ReadingOptions = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    output: Output = Output(),
) -> Outcome:
    """Show a folder of images in the browser: a gallery and the viewer.

    The gallery has filters by class, score and IoU. The model looks at every image in the background,
    and at once at one that is opened. Images can be uploaded for a look; they are kept in memory and gone with the
    server. Ctrl-C stops it.

    Parameters
    ----------
    folder
        With images; those in its subfolders are shown too, and nothing outside of it. Or with results of maskprism:
        then their overview and pages are served.
    images
        With results, the folder of the images: the same server then has the gallery and the map, over one filter.
        Default: the results alone.
    labels
        What `maskprism labels` wrote, its folder or labels.parquet: the gallery then filters and sorts by suspicious
        labels. Default: none.
    split
        Split of the data set, such as val. Default: all that list these images.
    host
        Address to listen on. Everybody who can reach it sees the images: 0.0.0.0 is the whole local network.
    port
        To listen on; 0 takes a free one.
    allow_host
        Further names by which browsers may call the server, such as the name of this machine. Default: none.
    cache_mb
        Memory for scenes and thumbnails, in MB; what was not used for longest goes first.
    max_upload_mb
        Refuse uploads of more MB.
    max_upload_megapixels
        Refuse uploads of more million pixels.
    max_upload_seconds
        Cut off uploads that take longer to arrive; others wait twice as long for their turn.
    static
        Serve this folder of finished pages instead, such as the page that runs models in the browser. Default: none.
    drop
        Serve the page that runs YOLO-seg models in the browser: drop a model and an image, or use the camera.
    open_browser
        Open the page in the browser.
    """
    import os

    from maskprism import server
    from maskprism.cli import COMMANDS
    from maskprism.errors import InputError
    from maskprism.tables.judged_labels import JudgedLabels

    if (folder is not None) + (static is not None) + drop != 1:
        raise InputError(
            "name a folder with images or results, or one of finished pages with --static DIR, or --drop; one of them"
        )
    allowed = allow_host or ()
    door = (host, port, open_browser, output)
    if drop:
        app = server.create_drop_app(host=host, allowed_hosts=allowed)
        return _serve_pages(app, {"folder": None}, "models in the browser", *door)
    if static is not None:
        app = server.create_static_app(static, host=host, allowed_hosts=allowed)
        return _serve_pages(app, {"folder": static}, str(static), *door)
    assert folder is not None
    results = folder if holds_results(folder) else None
    if results is None and images is not None:
        raise InputError(f"{folder}: holds no results (NAME.manifest.json), and --images is for a folder of results")
    if results is not None and images is None:
        app = server.create_results_app(results, order=[*COMMANDS], host=host, allowed_hosts=allowed)
        return _serve_pages(app, {"folder": results}, f"results of {results}", *door, of_results=True)
    folder = images or folder
    for name, value in (
        ("cache-mb", cache_mb),
        ("max-upload-mb", max_upload_mb),
        ("max-upload-megapixels", max_upload_megapixels),
        ("max-upload-seconds", max_upload_seconds),
    ):
        if value < 1:
            raise InputError(f"--{name} is {value}; expected at least 1")
    workers = min(os.cpu_count() or 1, MAX_WORKERS)
    limits = server.Limits(
        cache_bytes=cache_mb << 20,
        upload_bytes=max_upload_mb << 20,
        upload_pixels=max_upload_megapixels * 10**6,
        upload_s=max_upload_seconds,
        workers=workers,
    )
    network = load_model(model, reading, detections, threads=max((os.cpu_count() or 1) // workers, 1))
    judged = None if labels is None else JudgedLabels.read(labels)
    truth, network = labels_for(network, data, folder, output, split=split, crowds=crowds)

    def ready(url: str, gallery: server.Gallery) -> None:
        listed = gallery.images
        answer = {"url": url, "folder": folder, "images": len(listed), "left_out": listed.left_out}
        if listed.left_out:
            output.note(f"left out: {listed.left_out} links or special files; only files inside the folder are shown")
        if results is not None:
            answer["url"] = f"{url}reports/"
        _started(answer, f"{len(listed)} images of {folder}", host, "see these images", open_browser, output)

    server.serve(
        folder,
        network,
        host=host,
        port=port,
        allowed_hosts=allowed,
        labels=None if truth is None else truth.match,
        judged=judged,
        limits=limits,
        results=results,
        order=[*COMMANDS],
        on_ready=ready,
    )
    print("stopped")
    return Outcome(None)


def holds_results(folder: Path) -> bool:
    """Return whether a folder, or one of its subfolders, holds the manifest of a result."""
    from maskprism.reports.manifest import SUFFIX

    return next(folder.rglob(f"*{SUFFIX}"), None) is not None


def _serve_pages(
    app: ASGIApp,
    answer: dict[str, Any],
    shown: str,
    host: str,
    port: int,
    open_browser: bool,
    output: Output,
    *,
    of_results: bool = False,
) -> Outcome:
    """Serve finished pages: of results, or others. `answer` has all but the address; see `_started`."""
    from maskprism import server

    def ready(url: str) -> None:
        if of_results:
            output.note(
                "note: with --images FOLDER --model MODEL the same server has a gallery and a map of the images"
            )
        address = f"{url}reports/" if of_results else url
        what = "see these results" if of_results else "use this page"
        _started({"url": address, **answer}, shown, host, what, open_browser, output)

    server.run_app(app, host=host, port=port, on_ready=ready)
    print("stopped")
    return Outcome(None)


def _started(answer: dict[str, Any], shown: str, host: str, what: str, open_browser: bool, output: Output) -> None:
    """Tell where the server is.

    Parameters
    ----------
    shown
        What it serves.
    what
        What everybody who reaches it can do.
    """
    import webbrowser

    from maskprism import server

    print(f"{shown} at {answer['url']} (Ctrl-C stops)", flush=True)
    if output.json and sys.__stdout__:  # now, for it goes on until it is stopped
        print_json(answer, sys.__stdout__)
    if not server.is_loopback(host):
        output.note(f"everybody who can reach {host} can {what}")
    if open_browser:
        webbrowser.open(answer["url"])
