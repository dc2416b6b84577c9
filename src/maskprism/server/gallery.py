"""Images and what a model says about them: on demand, once each, within a memory bound, never in the way.

Everything slow runs on two small pools of threads: one for the model, one for the disk. The
event loop only hands work out and results over. A background task examines image after
image, so that filters know more and more of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from maskprism.analysis.labels.suspicion import SUSPICIOUS
from maskprism.analysis.truth.error_budget import PARTS, Part, budgets
from maskprism.analysis.truth.matching import MATCHING_RULE, MEANING
from maskprism.datasets.visit import Asking, Failure, VisitedImage, look_at
from maskprism.errors import ImageError, MaskprismError
from maskprism.io.images import MAX_PIXELS, decode_image
from maskprism.io.sources import SourceImage
from maskprism.server.cache import ByteCache, SingleFlight
from maskprism.server.images import GalleryImages
from maskprism.server.map import Known, gallery_map
from maskprism.server.records import WAITING, Query, Record, Tally
from maskprism.server.thumbnails import crops, painted_thumbnail, plain_thumbnail
from maskprism.viewer.payload import masks_of_pairs, viewer_scene
from maskprism.viewer.prototype_tags import Kinds

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from maskprism.analysis.truth.matching import Matches
    from maskprism.core.prediction import Prediction
    from maskprism.datasets import GroundTruth
    from maskprism.models import Model
    from maskprism.server.images import GalleryImage
    from maskprism.tables.judged_labels import JudgedLabels, LabelRow

Done = TypeVar("Done")
Labels = Callable[["Prediction", Path], "tuple[GroundTruth, Matches] | None"]
"""What is labelled in the image at a path and who found it, as `DatasetLabels.match`; None where it has no labels."""

_log = logging.getLogger(__name__)

_THUMBNAIL_SHARE = 8
_REFRESH_S = 2.0
_UPLOADS_KEPT = 4


@dataclass(frozen=True)
class Limits:
    """How much memory and work a server allows.

    Attributes
    ----------
    cache_bytes
        Cache bytes for viewer scenes and thumbnails together.
    upload_bytes, upload_pixels
        Of one uploaded image.
    workers
        Threads that run the model.
    upload_s
        Seconds in which an upload has to arrive; it waits twice as long for its turn.
    """

    cache_bytes: int = 256 << 20
    upload_bytes: int = 32 << 20
    upload_pixels: int = 40_000_000
    workers: int = 2
    upload_s: float = 60.0


@dataclass(frozen=True)
class ScannedImage:
    """What one look at an image gave; no pictures of one that failed, and a scene only if asked for.

    Attributes
    ----------
    crops
        A small picture of every instance, only if asked for.
    """

    record: Record
    thumbnail: bytes | None = None
    crops: tuple[bytes, ...] | None = None
    scene: bytes | None = None


class Gallery:
    """The images of a server with their records, scenes and thumbnails.

    All methods belong to the event loop, except `page`, `progress` and `map`, which may run in any thread.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: Model,
        *,
        labels: Labels | None = None,
        judged: JudgedLabels | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits = limits or Limits()
        self.images = GalleryImages(folder, upload_bytes=_UPLOADS_KEPT * limits.upload_bytes)
        self.model = model
        self.labels = labels
        self.judged = judged
        self.scenes: ByteCache[tuple[str, str]] = ByteCache(limits.cache_bytes - limits.cache_bytes // _THUMBNAIL_SHARE)
        self.thumbnails: ByteCache[tuple[str, str, str | int]] = ByteCache(limits.cache_bytes // _THUMBNAIL_SHARE)
        self.kinds = Kinds()
        """Of which kind the prototypes are, over the images examined."""
        self.predictions = 0
        """How often the model was asked."""
        self._records: dict[str, tuple[str, Record]] = {}
        self._looks: SingleFlight[tuple[str, str], ScannedImage] = SingleFlight()
        self._plain: SingleFlight[tuple[str, str], bytes] = SingleFlight()
        self._listings: SingleFlight[str, None] = SingleFlight()
        self._listed_at = -_REFRESH_S
        self._news = asyncio.Event()
        self._scan: asyncio.Task[None] | None = None
        workers = limits.workers if model.runtime.threadsafe else 1
        self._scanners = max(workers - 1, 1)  # one thread is left for those who wait
        self._network = ThreadPoolExecutor(workers, "network")
        self._disk = ThreadPoolExecutor(2, "disk")

    async def start(self) -> None:
        """Begin to examine the images in the background."""
        self._news.set()
        self._scan = asyncio.create_task(self._scan_forever())

    async def stop(self) -> None:
        """Stop the background work; threads finish what they are at."""
        if self._scan:
            self._scan.cancel()
        for pool in (self._network, self._disk):
            pool.shutdown(wait=False, cancel_futures=True)

    async def refresh(self) -> None:
        """List the folder anew, unless that was done a moment ago."""
        began = time.monotonic()
        if began - self._listed_at < _REFRESH_S:
            return
        await self._listings.run("", lambda: self._in(self._disk, self.images.refresh))
        # Large folders take long to list: then they are listed less often.
        self._listed_at = time.monotonic() + 10 * (time.monotonic() - began)
        names = {image.name for image in self.images}
        for gone in self._records.keys() - names:
            del self._records[gone]
        self._news.set()

    def map(self, query: Query) -> dict[str, Any]:
        """Return all instances found so far that fit, as the map takes them; see `map.gallery_map`.

        Raises
        ------
        TableError
            For none.
        """
        known = []
        for image in list(self.images):
            record = self.record(image)
            fitting = query.fitting(record)
            if query.takes(image.title, record, fitting):
                known.append(Known(image.name, record, fitting))
        classes = {class_id for one in known for class_id in one.record.classes}
        return gallery_map(
            known,
            {class_id: self.name_of(class_id) for class_id in classes},
            title=self.images.root.name,
            waiting=sum(one.record.state == "waiting" for one in known),
        )

    def record(self, image: GalleryImage) -> Record:
        """Return what is known of an image so far."""
        stamp, record = self._records.get(image.name, ("", WAITING))
        return record if stamp == image.stamp else WAITING

    async def examined(self, image: GalleryImage) -> Record:
        """Return the record of an image, which is examined for it if need be."""
        record = self.record(image)
        return record if record.state != "waiting" else (await self._look(image, with_scene=True)).record

    async def scene(self, image: GalleryImage) -> bytes:
        """Return the packed scene for the viewer.

        Raises
        ------
        ImageError
            For an image that failed.
        """
        while (held := self.scenes.get((image.name, image.stamp))) is None:
            record = self.record(image)
            if record.state == "failed":
                raise ImageError(record.message)
            # The look under way may be one without a scene; the next one is not.
            found = await self._look(image, with_scene=True)
            if found.scene is not None:
                return found.scene
        return held

    async def thumbnail(self, image: GalleryImage, *, masks: bool) -> bytes:
        """Return a small JPEG, with the masks painted in if asked for.

        Raises
        ------
        ImageError
            For an image that failed.
        """
        key = (image.name, image.stamp)
        held = self.thumbnails.get((*key, "masks" if masks else "plain"))
        if held is not None:
            return held
        if not masks:
            found = await self._plain.run(key, lambda: self._in(self._disk, lambda: self._plain_thumbnail(image)))
            self.thumbnails.put((*key, "plain"), found)
            return found
        look = await self._look(image, with_scene=False)
        if look.thumbnail is None:
            raise ImageError(look.record.message)
        return look.thumbnail

    async def crop(self, image: GalleryImage, index: int) -> bytes:
        """Return a small JPEG of one instance with its mask.

        Raises
        ------
        ImageError
            For an image that failed, or has no such.
        """
        while (held := self.thumbnails.get((image.name, image.stamp, index))) is None:
            record = await self.examined(image)
            if record.state == "failed":
                raise ImageError(record.message)
            if not 0 <= index < len(record.classes):
                raise ImageError(f"{image.title}: has {len(record.classes)} instances; there is no instance {index}")
            # As with scenes: the look under way may be one without crops.
            found = await self._look(image, with_scene=False, with_crops=True)
            if found.crops:
                return found.crops[index]
        return held

    async def upload(self, filename: str, data: bytes) -> tuple[GalleryImage, Record]:
        """Examine an uploaded image and keep it.

        Raises
        ------
        ImageError
            If it is none, or too large.
        """
        image = self.images.add(filename, data)
        record = await self.examined(image)
        if record.state == "failed":
            self.images.remove(image)
            raise ImageError(record.message)
        self.images.trim()
        return image, record

    async def answer(self, query: Query) -> dict[str, Any]:
        """See `page`; on another thread."""
        return await asyncio.to_thread(self.page, query)

    def page(self, query: Query) -> dict[str, Any]:
        """One page of the images that a query asks for, with counts over all of them."""
        tally = Tally()
        matches: list[tuple[float, GalleryImage, Record, list[int]]] = []
        for image in self.images:
            record = self.record(image)
            tally.add(record)
            fitting = query.fitting(record)
            if not query.takes(image.title, record, fitting):
                continue
            entries = [fitting] if query.view == "images" else [[index] for index in fitting]
            matches.extend((query.rank(record, entry), image, record, entry) for entry in entries)
        matches.sort(key=lambda found: found[0])
        shown = matches[query.offset : query.offset + query.limit]
        return {
            "total": len(self.images),
            "states": {state: tally.states[state] for state in ("waiting", "ok", "empty", "failed")},
            "missed": tally.missed,
            "found": tally.found,
            "false_positives": tally.false_positives,
            "localisation_errors": tally.localisation_errors,
            "matching": {"rule": MATCHING_RULE, "errors": MEANING} if self.labels else None,
            "classes": tally.classes(self.name_of),
            "scores": tally.scores,
            "ious": tally.ious,
            "labels": self.labels is not None,
            "judged": self.judged is not None,
            "upload_bytes": self.limits.upload_bytes,
            "matches": len(matches),
            "offset": query.offset,
            "images": [
                self._entry(image, record, fitting, query.stands_for(record, fitting))
                if query.view == "images"
                else {**self._entry(image, record, fitting, fitting[0]), "instance": fitting[0]}
                for _, image, record, fitting in shown
            ],
        }

    def progress(self) -> dict[str, Any]:
        """Return how far the background work is."""
        states = [self.record(image).state for image in self.images]
        waiting = states.count("waiting")
        return {"total": len(states), "examined": len(states) - waiting, "failed": states.count("failed")}

    def details(self, image: GalleryImage, record: Record) -> dict[str, Any]:
        """Return all that is known of one image, for JSON."""
        return {
            "name": image.name,
            "title": image.title,
            "state": record.state,
            "message": record.message,
            "size_hw": record.size_hw,
            "instances": [
                {**self._instance(record, index), "box": record.boxes[index]} for index in range(len(record.classes))
            ],
            "missed": [{"class": class_id, "name": self.name_of(class_id)} for class_id in record.missed],
            "suspicious": [row._asdict() for row in record.suspicious],
        }

    def name_of(self, class_id: int) -> str:
        """Return the name of a class, or "class7" where the model has none."""
        return self.model.spec.names.get(class_id, f"class{class_id}")

    def _instance(self, record: Record, index: int) -> dict[str, Any]:
        """Return what is known of one instance without its place."""
        return {
            "class": record.classes[index],
            "name": self.name_of(record.classes[index]),
            "score": record.scores[index],
            "iou": None if record.ious is None else record.ious[index],
            "outcome": None if record.outcomes is None else record.outcomes[index],
            "error": None if record.errors is None else record.errors[index],
            "losses": None if record.losses is None else record.losses[index],
        }

    def _entry(self, image: GalleryImage, record: Record, fitting: list[int], stands_for: int | None) -> dict[str, Any]:
        """One image as the gallery lists it; `stands_for` is the instance that put it where it is in the list."""
        ious = [iou for iou in record.ious or () if iou is not None]
        counts = [(class_id, record.classes.count(class_id)) for class_id in dict.fromkeys(record.classes)]
        return {
            "name": image.name,
            "title": image.title,
            "stamp": image.stamp,
            "uploaded": image.uploaded,
            "state": record.state,
            "message": record.message,
            "instances": len(record.classes),
            "classes": [{"id": class_id, "name": self.name_of(class_id), "instances": n} for class_id, n in counts],
            "fitting": fitting,
            "scores": [min(record.scores), max(record.scores)] if record.scores else None,
            "ious": [min(ious), max(ious)] if ious else None,
            "missed": len(record.missed),
            "false_positives": record.false_positives,
            "localisation_errors": record.localisation_errors,
            "suspicious": [f"{row.kind}: {row.class_name}, {row.suspicion:.2f}" for row in record.suspicious],
            "stands_for": None if stands_for is None else {"index": stands_for, **self._instance(record, stands_for)},
        }

    async def _scan_forever(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            waiting = iter([one for one in self.images if self.record(one).state == "waiting"])

            async def work(left: Any = waiting) -> None:
                for image in left:
                    if self.record(image).state == "waiting":
                        await self._look(image, with_scene=self._room_for_scenes(), push_out=False)

            await asyncio.gather(*(work() for _ in range(self._scanners)))

    def _room_for_scenes(self) -> bool:
        """Return whether the background may add a scene: it never pushes out what a request asked for."""
        average = self.scenes.held // max(len(self.scenes), 1)
        return self.scenes.held + average < self.scenes.limit

    async def _look(
        self, image: GalleryImage, *, with_scene: bool, with_crops: bool = False, push_out: bool = True
    ) -> ScannedImage:
        """Run the model on an image; requests meanwhile get the same answer."""

        async def look() -> ScannedImage:
            self.predictions += 1
            found = await self._in(self._network, lambda: self._examine(image, with_scene, with_crops))
            key = (image.name, image.stamp)
            self._records[image.name] = image.stamp, found.record
            if found.thumbnail is not None:
                self.thumbnails.put((*key, "masks"), found.thumbnail)
            for index, crop in enumerate(found.crops or ()):
                self.thumbnails.put((*key, index), crop)
            if found.scene is not None:
                self.scenes.put(key, found.scene, push_out=push_out)
            return found

        return await self._looks.run((image.name, image.stamp), look)

    def _examine(self, image: GalleryImage, with_scene: bool, with_crops: bool) -> ScannedImage:
        """Decode, predict, compare and draw; whatever goes wrong is the image's record."""

        def examine(visited: VisitedImage[tuple[Prediction, Any]]) -> ScannedImage:
            picture, (prediction, untuned) = visited.image, visited.prediction
            prediction = replace(prediction, source=image.title)
            found, remark = self._match(image, prediction)
            truth, matches = found or (None, None)
            known = self.record(image)
            lost = known.losses
            if known.state == "waiting":  # once each, also where the scene or the crops have to be made again
                self.kinds.add(picture, prediction)
                lost = None if truth is None else _losses(prediction, truth, matches)
            scene = None
            if with_scene:
                scene = viewer_scene(picture, prediction, bits=32, truth=truth, matches=matches, untuned=untuned).pack()
            return ScannedImage(
                Record.of(prediction, found, lost, remark, self._suspicious(image)),
                painted_thumbnail(picture, prediction),
                crops(picture, prediction, masks_of_pairs(truth, matches, len(prediction))) if with_crops else None,
                scene,
            )

        try:
            asking = Asking(self.model.predict_untuned, self.model.grey)
            (result,) = look_at([SourceImage(image.title, self._picture(image))], asking, examine)
            if not isinstance(result, Failure):
                return result
            message = f"{image.title}: {result.message}"
            if result.by_model:
                _log.warning(message)
        except MaskprismError as error:
            message = str(error)
        except KeyboardInterrupt:  # Ctrl-C ended the run of the model; the server ends, too
            message = f"{image.title}: interrupted"
        except Exception as error:  # of a decoder or of drawing: one image, not the server
            message = f"{image.title}: cannot be examined ({type(error).__name__}: {error})"
            _log.warning(message)
        return ScannedImage(Record("failed", message))

    def _match(self, image: GalleryImage, prediction: Prediction) -> tuple[tuple[GroundTruth, Matches] | None, str]:
        """Return the prediction against the image's labels if it has any; or what is wrong with them."""
        path = self.images.path(image)
        if self.labels is None or path is None:
            return None, ""
        try:
            return self.labels(prediction, path), ""
        except MaskprismError as error:
            return None, f"its labels cannot be used: {error}"

    def _suspicious(self, image: GalleryImage) -> list[LabelRow]:
        path = self.images.path(image)
        rows = () if self.judged is None or path is None else self.judged.of(path)
        return [row for row in rows if (row.suspicion or 0) >= SUSPICIOUS]

    def _picture(self, image: GalleryImage) -> UInt8[np.ndarray, "H W 3"]:
        data = self.images.read(image)
        if image.uploaded:
            return decode_image(
                data, image.title, max_pixels=self.limits.upload_pixels, known_size=True, grey=self.model.grey
            )
        return decode_image(data, image.title, max_pixels=MAX_PIXELS, grey=self.model.grey)

    def _plain_thumbnail(self, image: GalleryImage) -> bytes:
        return plain_thumbnail(self._picture(image))

    @staticmethod
    async def _in(pool: ThreadPoolExecutor, call: Callable[[], Done]) -> Done:
        return await asyncio.get_running_loop().run_in_executor(pool, call)


def _losses(
    prediction: Prediction, truth: GroundTruth, matches: Matches | None
) -> tuple[dict[Part, float] | None, ...]:
    """Per instance what its mask loses in each part, None for one that found nothing; see `error_budget.budgets`."""
    rows = {row.instance: row for row in budgets(prediction, truth, matches=matches)}
    return tuple(
        {part: getattr(rows[index], part) for part in PARTS} if index in rows else None
        for index in range(len(prediction))
    )
