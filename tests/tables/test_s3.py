"""A bucket of S3 from end to end, on a server of this machine; skipped without moto (`pip install "moto[server]"`)."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import fake_network
from helpers.bucket import assert_equal, at, upload
from helpers.fake_network import fake_model, write_images
from maskprism.errors import ImageError, TableError
from maskprism.io.sources import open_source
from maskprism.io.uris import UriPath, location
from maskprism.tables.extraction import extract
from maskprism.tables.table import CoefficientTable
from maskprism.tables.worker import Shard

pytest.importorskip("moto.server", reason="moto, a server that speaks S3, is not installed")


def keys(path: str, options: str) -> list[str]:
    folder = location(at(path, options))
    assert isinstance(folder, UriPath)
    return sorted(file.path for file in folder.files(recursive=True))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_from_a_bucket_to_a_bucket(tmp_path: Path, options: str, suffix: str) -> None:
    folder = tmp_path / "photos"
    write_images(folder / "a b", 3)
    write_images(folder / "[c]", 2)
    (folder / "bad.png").write_bytes(b"no image")
    reference, here = tmp_path / f"t{suffix}", f"whole{suffix}"
    extract(folder, fake_model(), reference)
    upload(folder, f"{here}/photos", options)
    out = at(f"{here}/out/t{suffix}", options)
    summary = extract(at(f"{here}/photos", options), fake_model(), out, flush_s=0)
    assert (summary.images, summary.failed) == (6, 1)
    assert str(summary.table) == f"s3://bucket/{here}/out/t{suffix}"
    assert_equal(out, reference)
    assert CoefficientTable.read(out).metadata["source"] == f"s3://bucket/{here}/photos"
    expected = sorted(f"bucket/{here}/out/{path.name}" for path in tmp_path.glob("t.*"))
    assert keys(f"{here}/out", options) == expected
    assert not location(at(f"{here}/out/t{suffix}.parts", options)).exists()
    assert extract(at(f"{here}/photos", options), fake_model(), out).skipped == 6
    for pattern, names in (
        ("photos/**/000.png", ["[c]/000.png", "a b/000.png"]),
        ("photos/a%20b/*", ["000.png", "001.png", "002.png"]),
        ("photos/[c]/001.png", ["001.png"]),
    ):
        assert [image.name for image in open_source(at(f"{here}/{pattern}", options)).pending(())] == names
    shard, image = Shard(fake_model()), "a b/001.png"
    assert shard([(image, at(f"{here}/photos/{image}", options))]).equals(shard([(image, folder / image)]))

    write_images(folder, 2)
    upload(folder, f"{here}/photos", options)
    extract(folder, fake_model(), reference)
    assert extract(at(f"{here}/photos", options), fake_model(), out).images == 2
    assert_equal(out, reference)
    extract(folder, fake_model(conf=0.5), reference, overwrite=True)
    extract(at(f"{here}/photos", options), fake_model(conf=0.5), out, overwrite=True)
    assert_equal(out, reference)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_and_started_again(tmp_path: Path, options: str) -> None:
    write_images(tmp_path / "photos", 30)
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference.parquet")
    upload(tmp_path / "photos", "killed/photos", options)
    out = at("killed/out/t.parquet", options)
    command = [sys.executable, fake_network.__file__, at("killed/photos", options), out]
    for attempt in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            already = int(process.stdout.readline())
            if attempt < 2:
                while int(process.stdout.readline()) < already + 8:
                    pass
                process.kill()
            process.stdout.read()
        assert process.returncode == (-signal.SIGKILL if attempt < 2 else 0)
    assert already > 0  # rows before a kill were not computed again
    assert_equal(out, tmp_path / "reference.parquet")
    assert keys("killed/out", options) == ["bucket/killed/out/t.images.parquet", "bucket/killed/out/t.parquet"]


def test_errors_are_one_sentence_without_secrets(tmp_path: Path, options: str) -> None:
    write_images(tmp_path, 1)
    closed = "region=us-east-1&scheme=http&endpoint_override=127.0.0.1:1"
    for ask in (
        lambda: open_source(at("none", options)),
        lambda: open_source(at("none", options).replace("@bucket", "@no-such-bucket")),
        lambda: open_source(at("photos", closed)),
        lambda: open_source(at("photos", "endpoint=none")),
        lambda: extract(tmp_path, fake_model(), at("t.csv", options).replace("@bucket", "@no-such-bucket")),
        lambda: extract(tmp_path, fake_model(), at("t.csv", closed)),
        lambda: CoefficientTable.read(at("t.csv", closed)),
    ):
        with pytest.raises((ImageError, TableError)) as caught:
            ask()
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "s3://" in str(caught.value)


def test_a_process_that_used_s3_ends_quietly(options: str) -> None:
    code = f"""
from maskprism.io.uris import location
location({at("none", options)!r}).exists()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout + result.stderr == ""
