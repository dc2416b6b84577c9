"""The strips of what went wrong."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from maskprism.reports.error_cards import ErrorCards

if TYPE_CHECKING:
    from maskprism.analysis.dataset.diagnosis import Diagnosis


def diagnosis(n_images: int) -> Diagnosis:
    """Two trucks in each image, one of which is predicted as a bus; and one car in the first, as a truck."""
    objects = [
        SimpleNamespace(image=f"{image}.png", object=number, class_name=name, instance=-1, area=9)
        for image in range(n_images)
        for number, name in enumerate(["truck", "truck", *(["car"] if image == 0 else [])])
    ]
    detections = [
        SimpleNamespace(
            image=one.image,
            object=one.object,
            instance=one.object,
            class_name={0: "bus", 2: "truck"}[one.object],
            score=0.5,
            outcome="false positive",
            error="class",
        )
        for one in objects
        if one.object != 1
    ]
    return cast("Diagnosis", SimpleNamespace(objects=objects, detections=detections))


def test_confused_classes_are_counted_among_the_labelled_ones() -> None:
    truck, car = ErrorCards.of(diagnosis(30)).pairs
    assert (truck.labelled, truck.predicted, truck.n_instances, truck.n_labelled) == ("truck", "bus", 30, 60)
    assert truck.share.low <= 0.5 <= truck.share.high
    assert "30 of 60" in truck.heading
    assert "0.500 (" in truck.heading
    assert (car.labelled, car.predicted, car.n_instances, car.n_labelled) == ("car", "truck", 1, 1)
    assert math.isnan(car.share.low)
    assert "too few images" in car.heading


def test_a_label_that_two_detections_confuse_is_one() -> None:
    found = diagnosis(30)
    twice = SimpleNamespace(objects=found.objects, detections=[*found.detections, *found.detections])
    truck, car = ErrorCards.of(cast("Diagnosis", twice)).pairs
    assert (truck.n_instances, len(truck.cards)) == (30, len(ErrorCards.of(found).pairs[0].cards))
    assert car.n_instances == 1
