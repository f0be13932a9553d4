"""A deployed configuration of DirectAI's: from a deploy body, to and from what its Redis holds, and as /model_config.

What is stored is JSON, the same in Redis as in a file:

    {"labels": ["bus"], "inc_sub_labels_dict": {"bus": ["red bus"]}, "exc_sub_labels_dict": {"bus": ["red truck"]},
     "augment_examples": true, "deployed_id": "..."}

and for a detector "nms_threshold", "class_agnostic_nms" and "label_conf_thres", a threshold for each label, besides.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipsieve.back.limits import check_classes
from clipsieve.back.pydantic_v1 import Fault, invalid, read_body
from clipsieve.errors import InputError, StoredDamaged, quoted
from clipsieve.types import MetaClass, Mode, TemplateSet

THRESHOLD, NMS = 0.1, 0.4
"""Of a detector's class, and of a detector, that does not say its own."""


@dataclass(frozen=True, slots=True)
class Suppression:
    """How a detector's boxes are thinned out.

    agnostic  whether across classes; None is DirectAI's other way to say no
    """

    nms: float
    agnostic: bool | None

    @property
    def mode(self) -> Mode:
        """The same in our words."""
        return "agnostic" if self.agnostic else "class-wise"


@dataclass(frozen=True, slots=True)
class Deployed:
    """A classifier's configuration, or a detector's.

    classes   in the order of the answer; names differ
    augment   whether texts are wrapped in templates; None is DirectAI's other way to say no
    detector  None for a classifier
    """

    classes: tuple[MetaClass, ...]
    augment: bool | None
    detector: Suppression | None = None

    @property
    def templates(self) -> TemplateSet | None:
        """What wraps each text: for a classifier 80 templates, for a detector 7."""
        if not self.augment:
            return None
        return "openai" if self.detector is None else "simple"

    def to_json(self, id: str) -> dict[str, Any]:
        """The answer of /model_config: the deploy body, every field of it, with its id."""
        configs: list[dict[str, Any]] = [
            {
                "name": c.name,
                "examples_to_include": [e.text for e in c.positive],
                "examples_to_exclude": [e.text for e in c.negative],
            }
            for c in self.classes
        ]
        more = {"deployed_id": id, "augment_examples": self.augment}
        if self.detector is None:
            return {"classifier_configs": configs, **more}
        for config, c in zip(configs, self.classes, strict=True):
            config["detection_threshold"] = c.threshold
        thinned = {"nms_threshold": self.detector.nms, "class_agnostic_nms": self.detector.agnostic}
        return {"detector_configs": configs, **thinned, **more}


def read_classifier(value: Any) -> tuple[Deployed, str | None]:
    """The configuration of a parsed deploy body, and the id that it asks for. InputError in DirectAI's words."""
    faults: list[Fault] = []
    body = read_body(value, faults)
    read = [
        (one.text("name"), one.texts("examples_to_include"), one.texts_or_none("examples_to_exclude"))
        for one in body.objects("classifier_configs")
    ]
    id, augment = body.text_or_none("deployed_id"), body.switch("augment_examples", True)
    if faults:
        raise invalid(faults)
    if not read:
        raise InputError("Class list is empty.")
    return Deployed(_classes(read), augment), id


def read_detector(value: Any) -> tuple[Deployed, str | None]:
    """The same of a detector, which may have no classes. InputError for a number that is infinite, or none, as well."""
    faults: list[Fault] = []
    body = read_body(value, faults)
    read = [
        (
            one.text("name"),
            one.texts("examples_to_include"),
            one.texts_or_none("examples_to_exclude"),
            one.number("detection_threshold", THRESHOLD),
        )
        for one in body.objects("detector_configs")
    ]
    nms, agnostic = body.number("nms_threshold", NMS), body.switch("class_agnostic_nms", True)
    id, augment = body.text_or_none("deployed_id"), body.switch("augment_examples", True)
    if faults:
        raise invalid(faults)
    for what, number in [
        ("nms_threshold", nms),
        *((f"detection_threshold of {name}", least) for name, *_, least in read),
    ]:
        if not math.isfinite(number):
            raise InputError(f"{what} is {number}; give a finite number.")
    return Deployed(_classes(read), augment, Suppression(nms, agnostic)), id


def _classes(read: Sequence[tuple[Any, ...]]) -> tuple[MetaClass, ...]:
    """The arguments of MetaClass as classes. InputError where one includes nothing, or two have one name."""
    for name, include, *_ in read:
        if not include:
            raise InputError(f"Model lacks example_to_include for {quoted(name, '')} class.")
    names = [name for name, *_ in read]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"Two classes are named {quoted(twice)}; give each a name of its own.")
    classes = tuple(MetaClass(*one) for one in read)
    check_classes(classes)
    return classes


def to_stored(deployed: Deployed, id: str) -> bytes:
    """A configuration as it is stored."""
    value: dict[str, Any] = {
        "labels": [c.name for c in deployed.classes],
        "inc_sub_labels_dict": {c.name: [e.text for e in c.positive] for c in deployed.classes},
        "exc_sub_labels_dict": {c.name: [e.text for e in c.negative] for c in deployed.classes},
        "augment_examples": deployed.augment,
        "deployed_id": id,
    }
    if deployed.detector is not None:
        value["nms_threshold"] = deployed.detector.nms
        value["class_agnostic_nms"] = deployed.detector.agnostic
        value["label_conf_thres"] = {c.name: c.threshold for c in deployed.classes}
    return json.dumps(value).encode()


def from_stored(data: bytes, id: str) -> Deployed:
    """The configuration that was stored under this id, by us or by DirectAI's server, whichever fields it knew.

    A label that is there twice counts once: DirectAI kept the later definition of the two.

    StoredDamaged if it is none.
    """
    try:
        return _read(json.loads(data, parse_constant=_no_number))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
        raise StoredDamaged(f"What is stored as {id} is no configuration ({what}); deploy it again.") from error


def _read(value: Mapping[str, Any]) -> Deployed:
    include, exclude = value["inc_sub_labels_dict"], value.get("exc_sub_labels_dict") or {}
    names = list(dict.fromkeys(value["labels"]))
    if set(names) != set(include) or not set(exclude) <= set(names):
        raise ValueError(
            "Labels and inc_sub_labels_dict keys must be equal. exc_sub_labels_dict keys must be a subset of labels."
        )
    detector, thresholds = None, {}
    if "nms_threshold" in value:
        detector = Suppression(_number(value["nms_threshold"]), value.get("class_agnostic_nms", True))
        thresholds = dict.fromkeys(names, THRESHOLD) | (value.get("label_conf_thres") or {})
    elif not names:
        raise ValueError("it has no class")
    classes = tuple(MetaClass(n, include[n], exclude.get(n, []), thresholds.get(n)) for n in names)
    return Deployed(classes, value.get("augment_examples", True), detector)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{quoted(value)} is no number")
    return float(value)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")
