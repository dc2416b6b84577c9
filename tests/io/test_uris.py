"""Images and tables behind URIs: the same names, pixels, rows and promises as on a disk."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem, SubTreeFileSystem, _MockFileSystem

import maskprism
from helpers.fake_network import fake_model, v5_model, write_images
from helpers.in_process import command as run
from helpers.written_tables import Crash, assert_same, images_of, write_video
from maskprism.datasets import open_dataset
from maskprism.errors import ImageError, InputError, MaskprismError, TableError
from maskprism.io.sources import ImageFiles, open_source
from maskprism.io.uris import UriPath, location, shown
from maskprism.tables.extraction import extract
from maskprism.tables.table import CoefficientTable

SUFFIXES = (".parquet", ".csv", "")  # the last one is a folder


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """An empty file system that all `memory://` URIs lead to."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()


def contents(folder: UriPath) -> dict[str, bytes]:
    return {path.name_in(folder): path.read_bytes() for path in folder.files(recursive=True)}


def upload(folder: Path, uri: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            fsspec.filesystem("memory").pipe(
                f"{uri.removeprefix('memory:/')}/{path.relative_to(folder).as_posix()}", path.read_bytes()
            )


def assert_equal(out: str | UriPath, reference: Path) -> None:
    """The same rows and records; the sources differ."""
    ours, expected = CoefficientTable.read(out), CoefficientTable.read(reference)
    assert ours.arrow.equals(expected.arrow)
    assert ours.images is not None
    assert expected.images is not None
    assert ours.images.equals(expected.images)
    assert dict(ours.metadata, source="") == dict(expected.metadata, source="")


def names(source: object) -> list[str] | str:
    """The names of the images of a source, or why there are none."""
    try:
        return [image.name for image in open_source(source).pending(())]  # type: ignore[arg-type]
    except ImageError as error:
        return str(error).partition(": ")[2]


def test_images_are_read_as_from_a_path(tmp_path: Path, memory: MemoryFileSystem) -> None:
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    rgb.save(tmp_path / "turned.jpg", exif=exif)
    rgb.convert("P").save(tmp_path / "a palette.png", transparency=0)
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(tmp_path / "deep.png")
    rgb.convert("RGBA").save(tmp_path / "é.webp", lossless=True)
    turned = (tmp_path / "turned.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(turned[: len(turned) // 2])
    (tmp_path / "empty.png").touch()
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "png")
    (tmp_path / "bomb.png").write_bytes(bomb.getvalue())
    upload(tmp_path, "memory://bucket/photos")

    def pixels(place: object) -> list[object] | str:
        try:
            return maskprism.read_image(place).tolist()  # type: ignore[arg-type]
        except ImageError as error:
            return str(error).partition(": ")[2]

    for path in (*tmp_path.iterdir(), tmp_path / "none.png"):
        expected = pixels(path)
        assert pixels(f"memory://bucket/photos/{path.name}") == expected
        assert pixels(path.as_uri()) == expected
    assert maskprism.read_image("memory://bucket/photos/turned.jpg").shape == (30, 20, 3)
    assert fake_model().predict("memory://bucket/photos/turned.jpg").source == "memory://bucket/photos/turned.jpg"


FILES = (
    *("a.jpg", "b.PNG", "x/c.jpg", "x/y/d.jpg", "x/.h/e.jpg", ".hid/f.jpg", ".g.jpg", "x/y/z/[1].jpg", "x/note.txt"),
    *("w[1]/k.jpg", "é/日.png", "b c/=a,\"b\"\n'c'.PNG", "x/a%20b#?.jpg"),
)
PATTERNS = (
    *("", "*.jpg", "**/*.jpg", "**", "*", "x/**", "x/*", "*/*.jpg", "x/**/d.jpg", "**/y/*", "x/.h/*", ".hid/*", ".*"),
    *("[ab].*", "x/y/**/[[]1].jpg", "w[1]/*", "w[1]/*.jpg", "**/*", "x/**/**/*.jpg", "**/[!a].jpg", "zz/*", "a.jpg"),
    *("x/y/z/[1].jpg", "é/*", "none", "**/none.*", "b c/*", "x/note.txt/*", "x/y/z/[[]?].jpg", "x/*/"),
)


@pytest.mark.parametrize("kind", ["fsspec", "tree", "mock"])
def test_folders_and_patterns_mean_the_same(tmp_path: Path, memory: MemoryFileSystem, kind: str) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    if kind == "fsspec":
        upload(tmp_path, "memory://photos")
        root = location("memory://photos")
    elif kind == "tree":
        root = UriPath("tree://", "photos", SubTreeFileSystem(str(tmp_path.parent), LocalFileSystem()))
        root = root.with_name(tmp_path.name)
    else:
        mock = _MockFileSystem(current_time=datetime(2024, 1, 1))
        root = UriPath("mock://", "photos", mock)
        for name in FILES:
            mock.create_dir(f"photos/{name.rpartition('/')[0]}", recursive=True)
            with mock.open_output_stream(f"photos/{name}") as file:
                file.write(b"1")
    assert isinstance(root, UriPath)
    seen = 0
    for pattern in PATTERNS:
        expected = names(tmp_path / pattern)
        assert names(root / pattern) == expected, pattern
        seen += isinstance(expected, list)
    assert seen > 15
    assert len(names(root)) == len(FILES) - 1


def test_a_uri_is_read_as_uris_are(tmp_path: Path, memory: MemoryFileSystem) -> None:
    path = write_images(tmp_path / "a b", 1)[0]
    assert location(path.as_uri()) == path
    assert location(f"file://localhost{path.as_posix().replace(' ', '%20')}") == path
    assert names(path.parent.as_uri()) == ["000.png"]
    assert str(location("s3://key:secret@bucket/a%20b/c?region=eu-west-1")) == "s3://bucket/a b/c"
    assert str(location("s3://bucket/a b/[c]*?region=eu-west-1")) == "s3://bucket/a b/[c]*"
    assert str(location("abfss://photos:c2VjcmV0@account.dfs.core.windows.net/a")) == "abfss://photos/a"
    assert shown("https://user:secret@host/a.jpg?token=secret") == "https://user@host/a.jpg"
    assert shown(Path("a:b@c/d?e")) == "a:b@c/d?e"
    nested = location("memory://a/b/../c//d/./e.tar.gz")
    assert isinstance(nested, UriPath)
    here = location("memory://a/b/e.tar.gz")
    assert isinstance(here, UriPath)
    assert (here.name, here.stem, here.suffix, str(here.parent)) == ("e.tar.gz", "e.tar", ".gz", "memory://a/b")
    assert str(here.with_name("f") / "../g/./h") == "memory://a/b/g/h"
    assert here.name_in(here.parent.parent) == "b/e.tar.gz"
    assert here.name_in(tmp_path) == "memory://a/b/e.tar.gz"
    assert pickle.loads(pickle.dumps(here)) == here


def test_lists(tmp_path: Path, memory: MemoryFileSystem) -> None:
    local = write_images(tmp_path / "photos", 4)
    upload(tmp_path / "photos", "memory://bucket/photos")
    uri = "memory://bucket/photos"
    text = f"# mixed\n{uri}/002.png\nphotos/000.png\n{uri}/none.png\n{local[1].as_uri()}\n{uri}/002.png\ns4://a:b@c/d.png\n"
    (tmp_path / "list.txt").write_text(text)
    out = tmp_path / "t.csv"
    assert extract(tmp_path / "list.txt", fake_model(), out).failed == 2
    expected = {
        f"{uri}/002.png": "ok",
        "photos/000.png": "empty",
        f"{uri}/none.png": "failed",
        "photos/001.png": "ok",
        "s4://a@c/d.png": "failed",
    }
    assert images_of(out).keys() == expected.keys()
    assert [name for name, status in images_of(out).items() if status == "failed"] == [
        f"{uri}/none.png",
        "s4://a@c/d.png",
    ]

    memory.pipe(
        "/bucket/list.txt",
        b"\xef\xbb\xbfphotos/003.png\n./photos/001.png\nmemory://bucket/photos/002.png\nphotos/../photos/001.png\n",
    )
    assert names("memory://bucket/list.txt") == ["photos/003.png", "photos/001.png", "photos/002.png"]
    memory.pipe("/bucket/empty.txt", b"# nothing\n")
    memory.pipe("/bucket/binary.txt", b"\xff\xfe\x00")
    assert "names no images" in names("memory://bucket/empty.txt")
    assert "not UTF-8" in names("memory://bucket/binary.txt")


def test_sources_that_cannot_be_read(tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/bucket/clip.avi", write_video(tmp_path / "clip.avi", 2).read_bytes())
    for source, message in (
        ("memory://bucket/none", "there is no such file or folder"),
        ("memory://bucket", "holds no images"),
        ("memory://bucket/*.jpg", "matches 0 files"),
        ("memory://bucket/clip.avi", "a video is only read from a path of this machine"),
        ("s4://key:secret@bucket/photos?token=secret", "cannot be opened .*Protocol not known: s4"),
        ("file://host/photos", "names no file of this machine"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            open_source(source)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
    with pytest.raises(TableError, match="Protocol not known"):
        CoefficientTable.read("s4://bucket/t.csv")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImageError, match="pip install fsspec"):
        open_source("memory://bucket")
    for path in ("s3://bucket/data.yaml", "file:///data.yaml"):
        with pytest.raises(InputError, match="a data set is only read from files of this machine"):
            open_dataset(path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "list.txt").write_text("s3://bucket/a.jpg\n")
    for split in ("s3://bucket/photos", "list.txt"):
        (tmp_path / "data.yaml").write_text(f"val: {split}\nnames: [cat]\n")
        with pytest.raises(InputError, match=r"s3://bucket/.* a data set is only read from files of this machine"):
            open_dataset(tmp_path / "data.yaml")


class Broken(MemoryFileSystem):
    """A file system whose library raises what it likes."""

    protocol = "broken"
    store: dict[str, object] = {}  # noqa: RUF012
    error: Exception | None = None
    broken: tuple[str, ...] = ()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("broken://", "memory://"))

    def __getattribute__(self, name: str) -> object:
        if Broken.error is not None and name in Broken.broken:
            raise Broken.error
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("no\ncredentials"), PermissionError("no credentials"), KeyError("no credentials"), EOFError()],
)
def test_whatever_a_file_system_raises_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fsspec.register_implementation("broken", Broken, clobber=True)
    Broken.store.clear()
    folder = tmp_path / "photos"
    for path in write_images(folder, 3):
        Broken().pipe(f"/b/photos/{path.name}", path.read_bytes())
    said = "EOFError" if isinstance(error, EOFError) else "no credentials"
    monkeypatch.setattr(Broken, "error", error)

    monkeypatch.setattr(Broken, "broken", ("info", "find"))
    for ask in (
        lambda: open_source("broken://b/photos"),
        lambda: CoefficientTable.read("broken://b/t.csv"),
        lambda: extract(folder, fake_model(), "broken://b/t.parquet"),
    ):
        with pytest.raises(MaskprismError, match=said) as caught:
            ask()
        assert isinstance(caught.value, ImageError | TableError)
        assert "\n" not in str(caught.value)

    monkeypatch.setattr(Broken, "broken", ("open",))  # listing works, reading does not
    images = open_source("broken://b/photos")
    for image in images.pending(()):
        with pytest.raises(ImageError, match=said):
            image.read()
    assert extract("broken://b/photos", fake_model(), tmp_path / "t.csv").all_failed
    with pytest.raises(TableError, match=f"{said}.*Images already extracted are kept"):
        extract(folder, fake_model(), "broken://b/t.csv")

    monkeypatch.setattr(Broken, "broken", ())
    extract(folder, fake_model(), "broken://b/t.csv")
    extract(folder, fake_model(), tmp_path / "reference.csv")
    assert_same("broken://b/t.csv", tmp_path / "reference.csv")  # type: ignore[arg-type]


def mock_root() -> UriPath:
    mock = _MockFileSystem(current_time=datetime(2024, 1, 1))
    mock.create_dir("b")
    return UriPath("mock://", "b", mock)


ROOTS: dict[str, Callable[[Path], UriPath]] = {
    "memory": lambda folder: UriPath("memory:/", "/b", PyFileSystem(FSSpecHandler(fsspec.filesystem("memory")))),
    "tree": lambda folder: UriPath("tree://", "b", SubTreeFileSystem(str(folder / "tree"), LocalFileSystem())),
    "mock": lambda folder: mock_root(),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ROOTS)
def test_a_table_is_the_same_behind_a_uri(tmp_path: Path, memory: MemoryFileSystem, kind: str, suffix: str) -> None:
    folder = tmp_path / "photos"
    write_images(folder, 5)
    (folder / "bad.png").write_bytes(b"no image")
    upload(folder, "memory://photos")
    (tmp_path / "tree").mkdir()
    root = ROOTS[kind](tmp_path)
    out, reference = root / f"deep/t{suffix}", tmp_path / f"reference{suffix}"
    with pytest.raises(TableError, match="there is no such table"):
        CoefficientTable.read(out)
    extract(folder, fake_model(), reference)
    summary = extract("memory://photos", fake_model(), out, flush_s=0)
    assert (summary.images, summary.failed, summary.table) == (6, 1, out)
    assert_equal(out, reference)
    assert CoefficientTable.read(out).metadata["source"] == "memory://photos"
    found = contents(out.parent)
    if suffix:
        assert found.keys() == {path.name.replace("reference", "t") for path in tmp_path.glob("reference*")}
    else:
        assert {str(Path(name).parent) for name in found} == {"t", "t/images", "t/instances"}
        assert {Path(name).name for name in found if name.count("/") == 1} == {"manifest.json"}  # no notes
    assert extract("memory://photos", fake_model(), out).skipped == 6
    assert contents(out.parent) == found
    if suffix == ".csv":  # byte for byte
        assert found["t.csv"] == reference.read_bytes()

    write_images(folder, 2, start=5)
    upload(folder, "memory://photos")
    assert (extract("memory://photos", fake_model(), out).images, extract(folder, fake_model(), reference).images) == (
        2,
        2,
    )
    assert_equal(out, reference)
    with pytest.raises(TableError, match=r"conf: 0\.25 in the table, 0\.5 now"):
        extract("memory://photos", fake_model(conf=0.5), out)
    extract("memory://photos", fake_model(conf=0.5), out, overwrite=True)
    extract(folder, fake_model(conf=0.5), reference, overwrite=True)
    assert_equal(out, reference)


def test_files_of_others_are_not_touched(tmp_path: Path, memory: MemoryFileSystem) -> None:
    folder = tmp_path / "photos"
    write_images(folder, 2)
    files = {
        "/b/text.csv": b"my,own,table\n1,2,3\n",
        "/b/a.images.csv": b"mine\n",
        "/b/b.parquet": b"no parquet",
        "/b/c.meta.json": b"{}",
        "/b/d.csv.parts/keep.txt": b"mine",
    }
    for name, data in files.items():
        memory.pipe(name, data)
    for name in ("text.csv", "a.csv", "b.parquet", "c.csv", "d.csv"):
        for overwrite in (False, True):
            with pytest.raises(TableError):
                extract(folder, fake_model(), f"memory://b/{name}", overwrite=overwrite)
    assert {name: memory.cat(name) for name in memory.find("/b")} == files
    for name in ("t.xlsx", "t.json"):
        with pytest.raises(TableError, match=r"expected a table ending in \.csv or \.parquet"):
            extract(folder, fake_model(), f"memory://b/{name}")


@pytest.mark.study
@pytest.mark.parametrize("whole", [True, False], ids=["put", "moved"])
@pytest.mark.parametrize(
    ("scenario", "suffix"), [("fresh", ".parquet"), ("added", ".parquet"), ("overwritten", ".csv")]
)
def test_a_crash_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, scenario: str, whole: bool, suffix: str
) -> None:
    """Of every change that becomes visible behind the URI, one after the other is the last before the end."""
    folder = tmp_path / "photos"
    write_images(folder, 2)
    few = folder / "few.txt"
    few.write_text("001.png\n")
    if whole:
        filesystem = PyFileSystem(FSSpecHandler(memory))
        monkeypatch.setattr("maskprism.io.uris._WHOLE_PUTS", (filesystem.type_name,))

    def before(out: str) -> None:
        if scenario == "added":
            extract(few, fake_model(), out, workers=1)
        if scenario == "overwritten":
            extract(folder, v5_model(), out, workers=1)

    def go(out: str, overwrite: bool = scenario == "overwritten") -> None:
        extract(folder, fake_model(), out, workers=1, flush_s=0, overwrite=overwrite)

    reference = str(tmp_path / f"reference{suffix}")
    before(reference)
    go(reference)
    before(f"memory://before/t{suffix}")
    earlier = {name.removeprefix("/before"): memory.cat(name) for name in memory.find("/before")}
    moment = crashes = 0
    while crashes == moment:
        moment += 1
        out = f"memory://crash{moment}/t{suffix}"
        memory.pipe({f"/crash{moment}{name}": data for name, data in earlier.items()})
        remaining = [moment]

        def crashing(function: Callable[..., object], remaining: list[int] = remaining) -> Callable[..., object]:
            def wrapper(*args: object, **kwargs: object) -> object:
                remaining[0] -= 1
                if remaining[0] == 0:
                    raise Crash
                return function(*args, **kwargs)

            return wrapper

        with monkeypatch.context() as patch:
            for owner, name in ((UriPath, "put"), (UriPath, "unlink"), (UriPath, "rmdir"), (FSSpecHandler, "move")):
                patch.setattr(owner, name, crashing(getattr(owner, name)))
            try:
                go(out)
            except Crash:
                crashes += 1
        if crashes == moment:
            with suppress(TableError) if scenario == "overwritten" else nullcontext():
                go(out, overwrite=False)
            exists = location(out).exists()
            if not exists or "v5" in CoefficientTable.read(out).metadata["model"]:
                go(out)
        assert_same(out, reference)  # type: ignore[arg-type]
        left = set(memory.find(f"/crash{moment}"))
        if suffix:
            expected = {path.name.replace("reference", "t") for path in tmp_path.glob("reference*")}
            assert {name.rpartition("/")[2] for name in left} == expected
        else:
            stems = [{name for name in left if f"/{kind}/" in name} for kind in ("images", "instances")]
            assert {name.replace("/images/", "/instances/") for name in stems[0]} == stems[1]
            assert left - stems[0] - stems[1] == {f"{out.removeprefix('memory:/')}/manifest.json"}
    assert crashes >= (9 if suffix else 5)


def test_where_nothing_can_be_moved_it_is_copied(
    tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def move(self: object, source: str, target: str) -> None:
        raise NotImplementedError("no moves")

    monkeypatch.setattr(FSSpecHandler, "move", move)
    write_images(tmp_path / "photos", 3)
    extract(tmp_path / "photos", fake_model(), "memory://b/t.csv", flush_s=0)
    extract(tmp_path / "photos", fake_model(), tmp_path / "t.csv")
    assert_same("memory://b/t.csv", tmp_path / "t.csv")  # type: ignore[arg-type]
    assert {name.rpartition("/")[2] for name in memory.find("/b")} == {path.name for path in tmp_path.glob("t.*")}


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, memory: MemoryFileSystem) -> None:
    write_images(tmp_path / "photos", 6)
    out = "memory://b/t.csv"

    def interrupt(done: int, total: int | None, failed: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path / "photos", fake_model(), out, on_progress=interrupt, flush_s=3600)
    with pytest.raises(TableError, match="not finished"):
        CoefficientTable.read(out)
    assert extract(tmp_path / "photos", fake_model(), out).skipped == 4
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference.csv")
    assert_same(out, tmp_path / "reference.csv")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".parquet", ""])
def test_of_two_writers_the_later_goes_on_and_nothing_is_doubled(
    tmp_path: Path, memory: MemoryFileSystem, suffix: str
) -> None:
    folder, out = tmp_path / "photos", f"memory://b/t{suffix}"
    write_images(folder, 6)
    extract(folder, fake_model(), tmp_path / "reference.parquet")
    later: list[int] = []

    def meanwhile(done: int, total: int | None, failed: int) -> None:
        if done == 3 and not later:
            with pytest.raises(TableError, match="other settings"):  # it does not disturb a table that it cannot join
                extract(folder, fake_model(conf=0.5), out)
        if done == 4 and not later:
            later.append(0)
            with pytest.raises(KeyboardInterrupt):
                extract(folder, fake_model(), out, flush_s=0, workers=1, on_progress=stop)

    def stop(done: int, total: int | None, failed: int) -> None:
        later.append(done)
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(TableError, match="another process has begun to write this table"):
        extract(folder, fake_model(), out, flush_s=0, workers=1, on_progress=meanwhile)
    assert later[1] >= 3  # the later took over what the earlier had done
    # Had the earlier been in the middle of its last commit just then, its images would be there twice.
    parts = "/b/t.parquet.parts" if suffix else "/b/t"
    last = sorted(name.rpartition("/")[2] for name in memory.find(f"{parts}/images"))[-1]
    for kind in ("images", "instances"):
        memory.pipe(f"{parts}/{kind}/{last[:7]}00000000.parquet", memory.cat(f"{parts}/{kind}/{last}"))
    if not suffix:
        assert CoefficientTable.read(out).arrow.num_rows == len(set(keys_of(CoefficientTable.read(out))))
    assert extract(folder, fake_model(), out).skipped == 5
    assert_same(out, tmp_path / "reference.parquet")  # type: ignore[arg-type]
    rows = pa.concat_tables(pq.read_table(io.BytesIO(memory.cat(name))) for name in instance_files(memory, suffix))
    assert rows.num_rows == CoefficientTable.read(out).arrow.num_rows  # for others who read the files, too


def keys_of(table: CoefficientTable) -> list[tuple[str, int]]:
    return list(zip(table.arrow["image"].to_pylist(), table.arrow["instance"].to_pylist(), strict=True))


def instance_files(memory: MemoryFileSystem, suffix: str) -> list[str]:
    return ["/b/t.parquet"] if suffix else memory.find("/b/t/instances")


def test_the_command_line(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 2)
    folder, out = (tmp_path / "photos").as_uri(), (tmp_path / "a b" / "t.csv").as_uri()
    result = run("extract", folder, "--model", "sample", "--out", out)
    assert result.returncode == 0, result.stderr
    assert len(images_of(tmp_path / "a b" / "t.csv")) == 2
    result = run("extract", folder, "--model", "sample", "--out", "s4://key:secret@b/t.csv")
    assert result.returncode == 1
    assert "Protocol not known" in result.stderr
    assert "secret" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_pixels_of_a_source_are_those_of_the_folder(tmp_path: Path, memory: MemoryFileSystem) -> None:
    write_images(tmp_path / "photos", 3)
    upload(tmp_path / "photos", "memory://photos")
    here, there = open_source(tmp_path / "photos"), open_source("memory://photos")
    assert isinstance(there, ImageFiles)
    assert there.count() == here.count() == 3
    assert there.count_done({"000.png", "none"}) == 1
    for mine, other in zip(here.pending({"001.png"}), there.pending({"001.png"}), strict=True):
        assert mine.name == other.name
        np.testing.assert_array_equal(mine.read(), other.read())
        np.testing.assert_array_equal(other.read(), cv2.imread(str(tmp_path / "photos" / mine.name)))
