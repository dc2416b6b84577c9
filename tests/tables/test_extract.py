from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.compute as pc
import pytest

import maskprism
from helpers.copied_process import copying
from helpers.fake_network import extract_slowly, fake_model, network, v5_model, write_images
from helpers.written_tables import Crash, assert_same, images_of, write_video
from maskprism._common.parallel import in_order
from maskprism.errors import ImageError, InputError, MissingExtraError, ModelError, TableError
from maskprism.tables.extraction import extract
from maskprism.tables.stored_prototypes import Stored
from maskprism.tables.table import CoefficientTable
from maskprism.tables.writer import UnfinishedTable

SUFFIXES = (".parquet", ".csv", "")  # the last one is a folder


def files_in(folder: Path) -> set[str]:
    """Names; parts of tables that are folders by their kind, for how many there are depends on interruptions."""
    parts = re.compile(r"[0-9]{6}\.parquet")
    return {f"{path.parent.name} in parts" if parts.fullmatch(path.name) else path.name for path in folder.rglob("*")}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_are_what_the_model_predicts(tmp_path: Path, suffix: str) -> None:
    paths = write_images(tmp_path / "photos", 9)
    model = fake_model()
    calls: list[tuple[int, int | None, object]] = []
    summary = extract(
        tmp_path / "photos", model, tmp_path / f"t{suffix}", on_progress=lambda *call: calls.append(call), workers=3
    )
    table = CoefficientTable.read(tmp_path / f"t{suffix}")

    row = empties = 0
    for path in paths:
        prediction = model.predict(path)
        areas, empty = prediction.areas("image"), prediction.empty
        for instance in prediction:
            found = table.arrow.slice(row, 1).to_pylist()[0]
            i = instance.index
            assert (found["image"], found["instance"]) == (path.name, i)
            assert (found["image_height"], found["image_width"]) == prediction.image_size
            assert (found["class_id"], found["class_name"]) == (instance.class_id, instance.name)
            assert np.float32(found["score"]) == np.float32(instance.score)
            np.testing.assert_array_equal([np.float32(found[c]) for c in ("x1", "y1", "x2", "y2")], instance.box)
            assert (found["mask_area"], found["mask_empty"]) == (areas[i], empty[i])
            np.testing.assert_array_equal(table.coefficients[row], instance.coefficients)
            row += 1
            empties += int(empty[i])
    assert row == len(table) == summary.instances
    assert 0 < empties < row
    assert summary.images == len(paths) == summary.with_instances + summary.empty
    assert summary.empty > 0
    assert set(images_of(tmp_path / f"t{suffix}").values()) == {"ok", "empty"}
    assert calls[0] == (0, 9, None)
    assert calls[-1] == (9, 9, None)
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    assert not [name for name in files_in(tmp_path) if name.endswith((".parts", ".tmp"))]


def test_order_is_that_of_tasks_and_few_are_in_flight() -> None:
    started: list[int] = []
    release = threading.Event()

    def work(task: int) -> int:
        started.append(task)
        if task == 0:
            release.wait(5)
        return task

    drawn: list[int] = []

    def tasks() -> object:
        for task in range(100):
            drawn.append(task)
            if task == 4:
                release.set()  # the fifth is drawn while the first is still at work
            yield task

    results = in_order(work, tasks(), workers=2)
    assert next(results) == 0
    assert len(drawn) <= 5
    assert list(results) == list(range(1, 100))


@pytest.mark.parametrize("batch", [1, 4])
def test_failed_images_are_recorded_and_the_rest_goes_on(tmp_path: Path, batch: int) -> None:
    folder = tmp_path / "photos"
    write_images(folder, 6)
    (folder / "001.png").write_bytes(b"no image at all")
    (folder / "003.png").write_bytes(b"")
    (folder / "004.png").write_bytes((folder / "004.png").read_bytes()[:200])
    model = fake_model(batch=batch)
    summary = extract(folder, model, tmp_path / "t.csv")
    assert (summary.images, summary.failed, summary.all_failed) == (6, 3, False)
    assert [failure.name for failure in summary.failures] == ["001.png", "003.png", "004.png"]
    images = CoefficientTable.read(tmp_path / "t.csv").images
    assert images is not None
    failed = images.filter(pc.equal(images["status"], "failed")).to_pylist()
    assert [one["image"] for one in failed] == ["001.png", "003.png", "004.png"]
    assert all(one["width"] is None and one["instances"] == 0 for one in failed)
    assert failed[0]["message"].startswith("not an image")
    assert "0 bytes" in failed[1]["message"]
    assert "truncated" in failed[2]["message"]

    # A batch of the model is filled by other images than when they come one by one; rows are the same.
    for name in ("001.png", "003.png", "004.png"):
        (folder / name).unlink()
    extract(folder, fake_model(batch=1), tmp_path / "reference.csv")
    expected = CoefficientTable.read(tmp_path / "reference.csv").arrow
    assert CoefficientTable.read(tmp_path / "t.csv").arrow.equals(expected)


def test_all_failed(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"nothing")
    summary = extract(tmp_path, fake_model(), tmp_path / "t.parquet")
    assert summary.all_failed
    assert len(CoefficientTable.read(tmp_path / "t.parquet")) == 0
    assert extract(tmp_path, fake_model(), tmp_path / "t.parquet").all_failed
    write_images(tmp_path, 1)
    assert not extract(tmp_path, fake_model(), tmp_path / "t.parquet").all_failed


def test_an_image_that_the_network_fails_on_is_recorded(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "photos", 6)
    size_hw = cv2.imread(str(paths[2])).shape[:2]
    bad = fake_model().predict(paths[2])
    assert bad.image_size == size_hw
    brightness: list[float] = []
    fake_model(lambda batch: brightness.append(float(batch.mean())) or network(batch)).predict(paths[2])

    def moody(batch: np.ndarray) -> object:
        if any(abs(float(image.mean()) - brightness[-1]) < 1e-7 for image in batch):
            raise RuntimeError("out of\nmemory")
        return network(batch)

    for size in (1, 3):
        out = tmp_path / f"t{size}.csv"
        summary = extract(tmp_path / "photos", fake_model(moody, batch=size), out)
        assert (summary.failed, summary.images) == (1, 6)
        images = CoefficientTable.read(out).images
        assert images is not None
        assert images.slice(2, 1).to_pylist() == [
            {
                "image": "002.png",
                "width": size_hw[1],
                "height": size_hw[0],
                "status": "failed",
                "instances": 0,
                "message": "out of memory",
            }
        ]


def test_a_network_that_stops_working_marks_nothing_as_done(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 24)
    calls = 0

    def dies(batch: np.ndarray) -> object:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise RuntimeError("device lost")
        return network(batch)

    with pytest.raises(ModelError, match=r"failed on 8 images in a row .*device lost"):
        extract(tmp_path / "photos", fake_model(dies), tmp_path / "t.parquet", workers=1)
    summary = extract(tmp_path / "photos", fake_model(), tmp_path / "t.parquet")
    assert (summary.skipped, summary.images, summary.failed) == (5, 19, 0)  # three calls were of `load`
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference.parquet")
    assert_same(tmp_path / "t.parquet", tmp_path / "reference.parquet")

    never = fake_model()
    never = replace(never, runtime=replace(never.runtime, function=lambda batch: 1 / 0))
    with pytest.raises(ModelError, match="division by zero"):
        extract(write_images(tmp_path / "one", 1)[0], never, tmp_path / "never.parquet")


def test_nothing_new_changes_nothing_and_new_images_are_added(tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out" / "deep" / "t.parquet"
    write_images(folder, 5, start=10)
    extract(folder, fake_model(), out)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.parent.iterdir()}
    again = extract(folder, fake_model(), out)
    assert (again.images, again.skipped) == (0, 5)
    assert "nothing new" in str(again)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.parent.iterdir()} == before

    write_images(folder, 3)
    added = extract(folder, fake_model(), out)
    assert (added.images, added.skipped) == (3, 5)
    assert list(images_of(out)) == [f"{n:03d}.png" for n in (10, 11, 12, 13, 14, 0, 1, 2)]
    extract(folder, fake_model(), tmp_path / "fresh.parquet")
    fresh = CoefficientTable.read(tmp_path / "fresh.parquet").arrow.sort_by([("image", "ascending")])
    assert CoefficientTable.read(out).arrow.sort_by([("image", "ascending")]).equals(fresh)


def crash_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Raise Crash instead of the `moment`-th change that becomes visible on disk."""
    remaining = [moment]

    def crashing(function: object) -> object:
        def wrapper(*args: object, **kwargs: object) -> object:
            remaining[0] -= 1
            if remaining[0] == 0:
                raise Crash
            return function(*args, **kwargs)  # type: ignore[operator]

        return wrapper

    monkeypatch.setattr(os, "replace", crashing(os.replace))
    monkeypatch.setattr(Path, "unlink", crashing(Path.unlink))
    monkeypatch.setattr(Path, "rmdir", crashing(Path.rmdir))


@pytest.mark.study
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("scenario", ["fresh", "added", "overwritten"])
def test_a_crash_at_any_commit_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: str, suffix: str
) -> None:
    write_images(tmp_path / "photos", 4)
    few = tmp_path / "photos" / "few.txt"  # two of them, under the names they have in the folder
    few.write_text("002.png\n003.png\n")

    stored: Stored | None = None if suffix == ".csv" else "summary"
    if scenario == "added":
        extract(few, fake_model(), tmp_path / "start" / f"t{suffix}", workers=1, prototypes=stored)
    if scenario == "overwritten":
        extract(tmp_path / "photos", v5_model(), tmp_path / "start" / f"t{suffix}", workers=1)

    def start(out: Path) -> None:
        """Put the files of an earlier run there."""
        if scenario != "fresh":
            shutil.copytree(tmp_path / "start", out.parent)

    def go(out: Path, overwrite: bool = scenario == "overwritten") -> None:
        model = fake_model()
        extract(tmp_path / "photos", model, out, workers=1, flush_s=0, overwrite=overwrite, prototypes=stored)

    reference = tmp_path / "reference" / f"t{suffix}"
    start(reference)
    go(reference)
    moment = crashes = 0
    while crashes == moment:
        moment += 1
        out = tmp_path / f"crash{moment}" / f"t{suffix}"
        start(out)
        with monkeypatch.context() as patch:
            crash_at(patch, moment)
            try:
                go(out)
            except Crash:
                crashes += 1
        if crashes == moment:
            # Without overwriting, it either completes what was begun, or still refuses the old files.
            with suppress(TableError) if scenario == "overwritten" else nullcontext():
                go(out, overwrite=False)
            if not out.exists() or "v5" in CoefficientTable.read(out).metadata["model"]:
                go(out)
        assert_same(out, reference)
        assert files_in(out.parent) == files_in(reference.parent)
    assert crashes > (12 if suffix else 7)


@pytest.mark.study
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_new_images_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    write_images(tmp_path / "more", 4)
    extract(tmp_path / "more", fake_model(), tmp_path / f"reference{suffix}")
    expected = CoefficientTable.read(tmp_path / f"reference{suffix}")
    moment = crashes = 0
    while crashes == moment:
        moment += 1
        folder, out = tmp_path / f"{moment}" / "photos", tmp_path / f"{moment}" / f"t{suffix}"
        write_images(folder, 3, start=1)
        with monkeypatch.context() as patch:
            crash_at(patch, moment)
            try:
                extract(folder, fake_model(), out, workers=1, flush_s=0)
            except Crash:
                crashes += 1
        write_images(folder, 1)
        summary = extract(folder, fake_model(), out)
        assert summary.images + summary.skipped == 4
        found = CoefficientTable.read(out)
        assert found.images is not None
        assert expected.images is not None
        assert found.images.sort_by("image").equals(expected.images)
        assert found.arrow.sort_by([("image", "ascending"), ("instance", "ascending")]).equals(expected.arrow)
    assert crashes > (10 if suffix else 8)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_crashes_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    write_images(tmp_path / "photos", 3)
    reference = tmp_path / f"reference{suffix}"
    extract(tmp_path / "photos", fake_model(), reference)
    rng = random.Random(5)
    for attempt in range(12):
        out = tmp_path / f"{attempt}" / f"t{suffix}"
        for _ in range(3):
            with monkeypatch.context() as patch:
                crash_at(patch, rng.randint(1, 16))
                with suppress(Crash):
                    extract(tmp_path / "photos", fake_model(), out, workers=1, flush_s=0)
        extract(tmp_path / "photos", fake_model(), out, workers=1)
        assert_same(out, reference)


@pytest.mark.study
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_killed_and_started_again_gives_the_rows_of_an_uninterrupted_run(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path / "photos", 40)
    reference, out = tmp_path / f"reference{suffix}", tmp_path / "out" / f"t{suffix}"
    extract(tmp_path / "photos", fake_model(), reference)
    context = copying()
    rng = random.Random(7)
    already: list[int] = []
    kills = 0
    for attempt in range(4):
        progress, theirs = context.Pipe(duplex=False)
        process = context.Process(target=extract_slowly, args=(str(tmp_path / "photos"), str(out), theirs.send))
        process.start()
        theirs.close()
        already.append(progress.recv())
        if attempt < 3:
            moment = already[-1] + rng.randint(4, 10)
            while progress.recv() < moment:
                pass
            time.sleep(rng.uniform(0, 0.03))
            process.kill()
        with suppress(EOFError):  # until it ends
            while True:
                progress.recv()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        assert process.exitcode in (0, -signal.SIGKILL)
    assert kills == 3
    assert already[-1] > 0  # rows before a kill were not computed again
    assert_same(out, reference)
    if suffix:
        assert files_in(out.parent) == {path.name.replace("reference", "t") for path in tmp_path.glob("reference*")}
    else:
        assert files_in(out) == files_in(reference)


def test_a_function_that_opens_the_model_is_as_good_as_the_model(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 5)
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference.parquet")
    extract(tmp_path / "photos", fake_model, tmp_path / "t.parquet")
    assert_same(tmp_path / "t.parquet", tmp_path / "reference.parquet")


def test_engines_that_there_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "photos", 1)
    with pytest.raises(InputError, match="engine is 'dask'; expected one of 'threads', 'ray'"):
        extract(tmp_path / "photos", fake_model(), tmp_path / "t.csv", engine="dask")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="gpus is 1; threads share the device of the model"):
        extract(tmp_path / "photos", fake_model(), tmp_path / "t.csv", gpus=1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"engine 'ray', .* needs the package ray, .*'maskprism\[ray\]'"):
        extract(tmp_path / "photos", fake_model, tmp_path / "t.csv", engine="ray")
    assert not list(tmp_path.glob("t.*"))


def test_a_part_holds_a_bounded_number_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "photos", 6)
    monkeypatch.setattr("maskprism.tables.extraction.MAX_BYTES_PER_PART", 1)
    extract(tmp_path / "photos", fake_model(), tmp_path / "t", workers=1)
    assert len(list((tmp_path / "t" / "images").iterdir())) == 6
    monkeypatch.undo()
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference", workers=1)
    assert len(list((tmp_path / "reference" / "images").iterdir())) == 1
    assert_same(tmp_path / "t", tmp_path / "reference")


def test_rows_without_a_record_are_removed_from_a_folder(tmp_path: Path) -> None:
    """Others read all files of instances; those of a part that was killed between its files must not stay."""
    write_images(tmp_path / "photos", 4)
    extract(tmp_path / "photos", fake_model(), tmp_path / "t", flush_s=0, workers=1)
    last = sorted((tmp_path / "t" / "images").iterdir())[-1]
    last.unlink()
    assert len(images_of(tmp_path / "t")) == 3
    summary = extract(tmp_path / "photos", fake_model(), tmp_path / "t")
    assert (summary.images, summary.skipped) == (1, 3)
    stems = [{path.stem for path in (tmp_path / "t" / kind).iterdir()} for kind in ("images", "instances")]
    assert stems[0] == stems[1]
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference")
    assert_same(tmp_path / "t", tmp_path / "reference")


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 12)

    def interrupt(done: int, total: int | None, failed: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path / "photos", fake_model(), tmp_path / "t.csv", on_progress=interrupt, flush_s=3600)
    with pytest.raises(TableError, match="not finished"):
        CoefficientTable.read(tmp_path / "t.csv")
    assert extract(tmp_path / "photos", fake_model(), tmp_path / "t.csv").skipped == 4
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference.csv")
    assert_same(tmp_path / "t.csv", tmp_path / "reference.csv")


@pytest.mark.parametrize(("owner", "name"), [(os, "replace"), (UnfinishedTable, "commit")])
def test_ctrl_c_around_a_commit_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    write_images(tmp_path / "photos", 3)
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference.parquet")
    function = getattr(owner, name)
    for moment in range(1, 4 if name == "commit" else 11):
        out = tmp_path / f"{moment}" / "t.parquet"
        calls = 0

        def interrupted(*args: object, moment: int = moment) -> None:
            nonlocal calls
            calls += 1
            function(*args)
            if calls == moment:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                extract(tmp_path / "photos", fake_model(), out, workers=1, flush_s=0)
        extract(tmp_path / "photos", fake_model(), out)
        assert_same(out, tmp_path / "reference.parquet")


@pytest.mark.parametrize("moment", [1, 4, 9])
def test_a_full_disk_is_named_and_costs_nothing_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    write_images(tmp_path / "photos", 4)
    out = tmp_path / "t.parquet"
    calls = 0
    fsync = os.fsync

    def full(file: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= moment:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TableError, match="No space left"):
            extract(tmp_path / "photos", fake_model(), out, workers=1, flush_s=0)
    assert extract(tmp_path / "photos", fake_model(), out).skipped == (moment - 1) // 2
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference.parquet")
    assert_same(out, tmp_path / "reference.parquet")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused_by_name(tmp_path: Path, suffix: str, finished: bool) -> None:
    folder, out = tmp_path / "photos", tmp_path / f"t{suffix}"
    write_images(folder, 4)

    def stop(done: int, total: int | None, failed: int) -> None:
        if done >= 2 and not finished:
            raise KeyboardInterrupt

    try:
        extract(folder, fake_model(), out, on_progress=stop)
    except KeyboardInterrupt:
        assert not finished
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for model, source, expected in (
        (fake_model(sha256="b" * 64), folder, f'model_sha256: "{"a" * 64}" in the table, "{"b" * 64}" now'),
        (fake_model(conf=0.5), folder, "conf: 0.25 in the table, 0.5 now"),
        (fake_model(rule="yolact"), folder, "rule.crop: "),
        (fake_model(), write_images(tmp_path / "elsewhere", 1)[0].parent, "source: "),
    ):
        with pytest.raises(TableError, match="other settings") as caught:
            extract(source, model, out)
        assert expected in str(caught.value)
        assert "overwrite" in str(caught.value)
    elsewhere = tmp_path / "elsewhere"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.parent != elsewhere} == (
        before
    )

    extract(folder, fake_model(conf=0.5), out, overwrite=True)
    extract(folder, fake_model(conf=0.5), tmp_path / f"reference{suffix}")
    assert_same(out, tmp_path / f"reference{suffix}")


def test_files_of_others_are_not_touched(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_images(folder, 2)
    (tmp_path / "text.csv").write_text("my,own,table\n1,2,3\n")
    (tmp_path / "a.images.csv").write_text("mine\n")
    (tmp_path / "b.parquet").write_text("no parquet")
    (tmp_path / "c.meta.json").write_text("{}")
    (tmp_path / "d.csv.parts").mkdir()
    (tmp_path / "d.csv.parts" / "keep.txt").write_text("mine")
    (tmp_path / "e.parquet").mkdir()
    (tmp_path / "f").write_text("a file where a folder should be")
    before = files_in(tmp_path)
    for name in ("text.csv", "a.csv", "b.parquet", "c.csv", "d.csv", "e.parquet", "f/t.csv"):
        for overwrite in (False, True):
            with pytest.raises(TableError):
                extract(folder, fake_model(), tmp_path / name, overwrite=overwrite)
    assert files_in(tmp_path) == before
    for name in ("t.xlsx", "t.PARQUET.gz"):
        with pytest.raises(TableError, match=r"expected a table ending in \.csv or \.parquet"):
            extract(folder, fake_model(), tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES[:2])
def test_half_a_table_is_refused(tmp_path: Path, suffix: str) -> None:
    folder, out, images = tmp_path / "photos", tmp_path / f"t{suffix}", tmp_path / f"t.images{suffix}"
    write_images(folder, 4)
    extract(folder, fake_model(), out)
    kept = out.read_bytes(), images.read_bytes()
    images.unlink()
    for _ in range(2):  # refusing leaves nothing behind that would make the second try different
        with pytest.raises(TableError, match="is missing"):
            extract(folder, fake_model(), out)
    images.write_bytes(kept[1])
    out.unlink()
    with pytest.raises(TableError, match="not there"):
        extract(folder, fake_model(), out)
    extract(folder, fake_model(), out, overwrite=True)
    assert (out.read_bytes(), images.read_bytes()) == kept


def test_a_table_that_lost_rows_is_refused(tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "t.csv"
    write_images(folder, 4)
    extract(folder, fake_model(), out)
    out.write_text("".join(out.read_text().splitlines(keepends=True)[:-1]))
    write_images(folder, 2, start=4)
    with pytest.raises(TableError, match="one of them was changed"):
        extract(folder, fake_model(), out)


def test_two_runs_on_one_table_refuse_each_other(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    folder, out = tmp_path / "photos", tmp_path / "t.csv"
    write_images(folder, 3)
    refused: list[str] = []

    def meanwhile(done: int, total: int | None, failed: int) -> None:
        with pytest.raises(TableError, match="another process") as caught:
            extract(folder, fake_model(), out)
        refused.append(str(caught.value))

    assert extract(folder, fake_model(), out, on_progress=meanwhile).images == 3
    assert refused
    assert extract(folder, fake_model(), out).skipped == 3


def test_names_stay_apart(tmp_path: Path) -> None:
    folder = tmp_path / "my photos [2024]"
    write_images(folder / "été", 1)
    write_images(folder / "b c", 1, suffix=".PNG")
    write_images(folder / "b c" / "日本", 1)
    (folder / "b c" / "000.PNG").rename(folder / "b c" / "=a,\"b\"\n'c'.PNG")
    (folder / "notes.txt").write_text("not an image")
    for suffix in SUFFIXES:
        extract(folder, fake_model(), tmp_path / f"t{suffix}")
        assert list(images_of(tmp_path / f"t{suffix}")) == [
            "b c/=a,\"b\"\n'c'.PNG",
            "b c/日本/000.png",
            "été/000.png",
        ]
        assert extract(folder, fake_model(), tmp_path / f"t{suffix}").skipped == 3


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode on this system")
def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    source = write_images(folder, 1)[0]
    source.rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    extract(folder, fake_model(), tmp_path / "t.parquet")
    assert images_of(tmp_path / "t.parquet").keys() == {"caf\\udce9.png"}
    assert extract(folder, fake_model(), tmp_path / "t.parquet").skipped == 1


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "photos" / "a", 2)
    write_images(tmp_path / "photos" / "b" / "deep", 1)
    write_images(tmp_path / "photos [x]", 1)
    (tmp_path / "photos" / "a" / "000.txt").write_text("label")
    (tmp_path / "link").symlink_to(tmp_path / "photos", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    for pattern, expected in (
        ("photos/**/*.png", ["a/000.png", "a/001.png", "b/deep/000.png"]),
        (str(tmp_path / "photos" / "a" / "*"), ["000.png", "001.png"]),
        ("photos/a/00[1-9].png", ["001.png"]),
        ("photos [x]/*.png", ["000.png"]),
        ("link/a/*.png", ["000.png", "001.png"]),
        (str(tmp_path / "link" / "**" / "000.png"), ["a/000.png", "b/deep/000.png"]),
        ("photos/a/../b/*/000.png", ["deep/000.png"]),
    ):
        extract(pattern, fake_model(), "t.csv", overwrite=True)
        assert list(images_of(tmp_path / "t.csv")) == expected
    (tmp_path / "photos" / "b" / "loop").symlink_to(tmp_path / "photos", target_is_directory=True)
    extract("photos/**/*.png", fake_model(), "t.csv", overwrite=True)
    assert list(images_of(tmp_path / "t.csv")) == ["a/000.png", "a/001.png", "b/deep/000.png"]
    # A pattern and its folder name the images alike, so one can continue the other.
    extract("photos/**/00[1-9].png", fake_model(), "u.csv")
    assert extract("photos", fake_model(), "u.csv").skipped == 1


def test_lists(tmp_path: Path) -> None:
    inside = write_images(tmp_path / "lists" / "sub", 3)
    outside = write_images(tmp_path / "other", 1)[0]
    text = f"\ufeff# my photos\nsub/002.png\n\n  sub/000.png\n{outside}\n./sub/002.png\nsub/none.png\n"
    (tmp_path / "lists" / "photos.txt").write_text(text, encoding="utf-8")
    extract(tmp_path / "lists" / "photos.txt", fake_model(), tmp_path / "t.csv")
    found = images_of(tmp_path / "t.csv")
    assert list(found) == ["sub/002.png", "sub/000.png", outside.as_posix(), "sub/none.png"]
    assert found["sub/none.png"] == "failed"
    one = extract(inside[1], fake_model(), tmp_path / "one.csv")
    assert (one.images, list(images_of(tmp_path / "one.csv"))) == (1, ["001.png"])


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for source, message in (
        ("missing", "no such file or folder"),
        ("empty", "holds no images"),
        ("nothing/*.jpg", "matches 0 files"),
        ("empty.txt", "names no images"),
        ("binary.txt", "not UTF-8"),
        ("a" * 5000, "cannot be opened"),
        ("a\0*.png", "cannot be opened|matches 0 files"),  # as the Python has it
    ):
        with pytest.raises(ImageError, match=message):
            extract(tmp_path / source, fake_model(), tmp_path / "t.csv")
    assert not (tmp_path / "t.csv.parts").exists()
    for options in ({"workers": 0}, {"flush_s": -1.0}):
        with pytest.raises(InputError):
            extract(tmp_path, fake_model(), tmp_path / "t.csv", **options)  # type: ignore[arg-type]


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "images", 1)
    (tmp_path / "images" / "locked").mkdir()
    list_folder = os.scandir

    def refusing(path: Any) -> Any:  # root may read everything, and tests may be root
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ImageError, match=r"locked: the folder cannot be read \(Permission denied\)"):
        extract(tmp_path / "images", fake_model(), tmp_path / "t.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.timeout(60)
def test_pipes_and_links_to_nothing_are_no_images(tmp_path: Path) -> None:
    """Reading one would wait for ever."""
    folder = tmp_path / "images"
    write_images(folder, 2)
    os.mkfifo(folder / "pipe.png")
    (folder / "linked.png").symlink_to(folder / "pipe.png")
    (folder / "dangling.png").symlink_to(folder / "nothing.png")
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    extract(folder, fake_model(), tmp_path / "t.parquet")
    good, bad = {"000.png": "ok", "001.png": "empty"}, ("dangling.png", "itself.png", "linked.png")
    assert images_of(tmp_path / "t.parquet") == good | dict.fromkeys(bad, "failed")
    (tmp_path / "list.txt").write_text("images/pipe.png\nimages/000.png\n")
    extract(tmp_path / "list.txt", fake_model(), tmp_path / "u.parquet")
    assert images_of(tmp_path / "u.parquet") == {"images/pipe.png": "failed", "images/000.png": "ok"}
    extract(str(folder / "*.png"), fake_model(), tmp_path / "v.parquet")
    assert images_of(tmp_path / "v.parquet") == good
    for name in ("pipe.txt", "pipe.mp4"):
        os.mkfifo(tmp_path / name)
    for source in (folder / "pipe.png", tmp_path / "pipe.txt", tmp_path / "pipe.mp4"):
        with pytest.raises(ImageError, match="it is not a regular file, but a pipe"):
            extract(source, fake_model(), tmp_path / "t.parquet")
    for name in ("pipe.csv", "pipe.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(TableError):
            extract(folder, fake_model(), tmp_path / name)
        assert not (tmp_path / f"{name}.parts").exists()


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    write_images(tmp_path / "photos" / "a", 1)
    write_images(tmp_path / "elsewhere", 1)
    try:
        (tmp_path / "photos" / "b").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "photos" / "a" / "loop").symlink_to(tmp_path / "photos")
    except OSError:
        pytest.skip("this system does not let us make links")
    extract(tmp_path / "photos", fake_model(), tmp_path / "t.csv")
    assert list(images_of(tmp_path / "t.csv")) == ["a/000.png", "b/000.png"]


def test_frames_of_a_video(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", 11)
    extract(clip, fake_model(), tmp_path / "reference.parquet")
    assert list(images_of(tmp_path / "reference.parquet")) == [f"clip.avi#{index:06d}" for index in range(11)]

    def interrupt(done: int, total: int | None, failed: int) -> None:
        assert total == 11
        if done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(clip, fake_model(), tmp_path / "t.parquet", on_progress=interrupt)
    resumed = extract(clip, fake_model(), tmp_path / "t.parquet")
    assert (resumed.skipped, resumed.images) == (5, 6)
    assert_same(tmp_path / "t.parquet", tmp_path / "reference.parquet")
    assert extract(clip, fake_model(), tmp_path / "t.parquet").images == 0

    video = cv2.VideoCapture(str(clip))
    _, frame = video.read()
    prediction = fake_model().predict(frame)
    first = CoefficientTable.read(tmp_path / "t.parquet")
    mine = first.coefficients[np.array(first.arrow["image"].to_pylist()) == "clip.avi#000000"]
    np.testing.assert_array_equal(mine, prediction.coefficients)


def test_videos_that_are_damaged(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 5000)
    summary = extract(tmp_path / "broken.mp4", fake_model(), tmp_path / "t.csv")
    assert summary.all_failed
    assert images_of(tmp_path / "t.csv") == {"broken.mp4": "failed"}
    assert extract(tmp_path / "broken.mp4", fake_model(), tmp_path / "t.csv").images == 0

    whole = write_video(tmp_path / "clip.avi", 30).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    extract(tmp_path / "cut.avi", fake_model(), tmp_path / "cut.csv")
    found = images_of(tmp_path / "cut.csv")
    # Where the decoder notices, the video itself is recorded as failed after the frames that there are.
    frames = [name for name in found if "#" in name]
    assert frames == [f"cut.avi#{index:06d}" for index in range(len(frames))]
    assert 0 < len(frames) < 30

    # A frame that claims 2 GB: some decoders of OpenCV go on behind it, others raise an error.
    length = whole.index(b"00dc", whole.index(b"movi")) + 4
    (tmp_path / "huge.avi").write_bytes(whole[:length] + b"\xff\xff\xff\x7f" + whole[length + 4 :])
    extract(tmp_path / "huge.avi", fake_model(), tmp_path / "huge.csv")
    found = images_of(tmp_path / "huge.csv")
    frames = [name for name in found if "#" in name]
    assert frames == [f"huge.avi#{index:06d}" for index in range(len(frames))]
    assert len(frames) < 30
    assert len(frames) >= 0.9 * 30 or found["huge.avi"] == "failed"


@pytest.mark.parametrize("broken_at", [0, 12])
def test_videos_whose_decoder_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int) -> None:
    clip = write_video(tmp_path / "clip.avi", 30)

    class Capture:
        """OpenCV has errors for some damage where it otherwise only says no."""

        def __init__(self, path: str) -> None:
            self._video, self._grabbed = VideoCapture(path), 0

        def grab(self) -> bool:
            if self._grabbed == broken_at:
                raise cv2.error("Unknown C++ exception")
            self._grabbed += 1
            return self._video.grab()

        def __getattr__(self, name: str) -> object:
            return getattr(self._video, name)

    VideoCapture = cv2.VideoCapture
    monkeypatch.setattr("cv2.VideoCapture", Capture)
    extract(clip, fake_model(), tmp_path / "t.csv")
    found = images_of(tmp_path / "t.csv")
    assert found.pop("clip.avi") == "failed"
    assert list(found) == [f"clip.avi#{index:06d}" for index in range(broken_at)]


def test_large_images_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "photos", 8)
    monkeypatch.setattr("maskprism.datasets.visit.LARGE_PIXELS", 100)
    at_work, most = [0], [0]
    guard = threading.Lock()

    def counting(batch: np.ndarray) -> object:
        with guard:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        time.sleep(0.01)
        with guard:
            at_work[0] -= 1
        return network(batch)

    extract(tmp_path / "photos", fake_model(counting), tmp_path / "t.csv", workers=4)
    assert most == [1]


def test_thread_settings_of_opencv_are_restored(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 1)
    before = cv2.getNumThreads()
    seen: list[int] = []

    def look(batch: np.ndarray) -> object:
        seen.append(cv2.getNumThreads())
        return network(batch)

    extract(tmp_path / "photos", fake_model(look), tmp_path / "t.csv")
    assert seen[-1] == 1
    assert cv2.getNumThreads() == before


def test_real_images(real_data: Path, tmp_path: Path) -> None:
    model = maskprism.load(real_data / "models" / "yolov8n-seg.onnx", threads=1)
    for suffix in SUFFIXES:
        summary = extract(real_data / "images" / "*.jpg", model, tmp_path / f"t{suffix}")
        assert (summary.with_instances, summary.failed) == (2, 0)
    table = CoefficientTable.read(tmp_path / "t.csv")
    assert table.arrow.equals(CoefficientTable.read(tmp_path / "t.parquet").arrow)
    bus = table.arrow.filter(pc.equal(table.arrow["image"], "bus.jpg"))
    prediction = model.predict(real_data / "images" / "bus.jpg")
    assert bus["class_name"].to_pylist() == [instance.name for instance in prediction]
    assert {"bus", "person"} <= set(bus["class_name"].to_pylist())
    assert bus["mask_area"].to_pylist() == prediction.masks("image").sum(axis=(1, 2)).tolist()
    np.testing.assert_array_equal(table.coefficients[: len(bus)], prediction.coefficients)
