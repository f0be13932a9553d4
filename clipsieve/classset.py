"""ClassSet <-> JSON.

    {"classes": [{"name": "bus", "positive": ["red bus", {"image": "17"}], "negative": [], "threshold": null}],
     "calibration": "background", "templates": null, "nms": null, "mode": null}

A string is a text; {"image": "17"} an item by id, as a string because JavaScript rounds above 2**53 (a number is read
too); {"image": "<64 hex digits>"} an uploaded image by content hash; {"image": "17", "box": [x0, y0, x1, y1]} a part of
one, in 0..1 of it. Only "classes", "name" and "positive" must be
there. A field that is not known is an error, so that a misspelt "treshold" does not pass in silence; a set that is
stored keeps such fields, and whoever stored it is told of them.

DirectAI's deploy bodies, with "classifier_configs" or "detector_configs", are read too; there unknown fields are
ignored, as its server does.
"""

import json
from collections.abc import Mapping
from typing import Any

from clipsieve.errors import InputError, quoted
from clipsieve.types import ClassSet, Example, MetaClass

_CLASS_FIELDS = frozenset({"name", "positive", "negative", "threshold"})
_SET_FIELDS = frozenset({"classes", "calibration", "templates", "nms", "mode"})


def dumps(classes: ClassSet) -> str:
    """The set as JSON text, indented, ending in a newline."""
    return json.dumps(to_json(classes), indent=2, ensure_ascii=False) + "\n"


def loads(text: str | bytes) -> ClassSet:
    """The set that `dumps` wrote, or a DirectAI deploy body. InputError says what is wrong with anything else."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"The class set is not JSON: {error}.") from error
    return from_json(value)


def to_json(classes: ClassSet) -> dict[str, Any]:
    """The set as JSON values (dict, list, str, float, None)."""
    return {
        "classes": [
            {
                "name": c.name,
                "positive": [example_to_json(e) for e in c.positive],
                "negative": [example_to_json(e) for e in c.negative],
                "threshold": c.threshold,
            }
            for c in classes.classes
        ],
        "calibration": classes.calibration,
        "templates": list(classes.templates) if isinstance(classes.templates, tuple) else classes.templates,
        "nms": classes.nms,
        "mode": classes.mode,
    }


def from_json(value: object, *, strict: bool = True) -> ClassSet:
    """The set from parsed JSON, of either dialect. InputError names the field at fault.

    strict  whether a field that is not known is at fault; else it is passed over, see `unknown_fields`
    """
    body = _object("the class set", value)
    if "classifier_configs" in body:
        return _from_directai_classifier(body)
    if "detector_configs" in body:
        return _from_directai_detector(body)
    if strict:
        _only_known("the class set", body, _SET_FIELDS)
    classes = enumerate(_list("the class set", body, "classes"))
    return ClassSet(
        [_class_from_json(f"classes[{i}]", one, strict) for i, one in classes],
        calibration=body.get("calibration", "none"),
        templates=_templates_from_json(body.get("templates")),
        nms=body.get("nms"),
        mode=body.get("mode"),
    )


def unknown_fields(value: Mapping[str, Any]) -> list[str]:
    """What `from_json` passes over in a set of our own dialect, if not strict: "colour", "classes[0].note"."""
    if "classifier_configs" in value or "detector_configs" in value:
        return []
    found = [name for name in value if name not in _SET_FIELDS]
    for i, one in enumerate(value["classes"]):
        found += [f"classes[{i}].{name}" for name in one if name not in _CLASS_FIELDS]
    return found


def _class_from_json(where: str, value: object, strict: bool) -> MetaClass:
    body = _object(where, value)
    if strict:
        _only_known(where, body, _CLASS_FIELDS)
    return MetaClass(
        _required(where, body, "name"),
        [example_from_json(f"{where}.positive", e) for e in _list(where, body, "positive")],
        [example_from_json(f"{where}.negative", e) for e in _list(where, body, "negative", optional=True)],
        threshold=body.get("threshold"),
    )


def example_to_json(example: Example) -> str | dict[str, Any]:
    """One example: a text, or {"image": ...}, with "box" where it is a part of an image."""
    if example.text is not None:
        return example.text
    return {"image": str(example.image)} | ({} if example.box is None else {"box": list(example.box)})


def example_from_json(where: str, value: object) -> Example:
    """What `example_to_json` gave. InputError names `where` it stands."""
    if isinstance(value, str):
        return Example(text=value)
    if isinstance(value, Mapping) and value.keys() in ({"image"}, {"image", "box"}):
        image = value["image"]
        # 19 digits hold every id; a content hash has 64, and might be all digits.
        if isinstance(image, str) and len(image) <= 19 and image.isascii() and image.isdigit():
            image = int(image)
        return Example(image=image, box=value.get("box"))
    raise InputError(
        f'{where} holds {quoted(value)}; an example is a text, or {{"image": id or content hash}}, '
        'perhaps with a "box".'
    )


def _templates_from_json(value: Any) -> Any:
    if value is None or isinstance(value, str | list):
        return value  # ClassSet checks what is inside
    raise InputError(f"templates is {quoted(value)}; it must be a list of strings, the name of a list, or null.")


def _from_directai_classifier(body: Mapping[str, Any]) -> ClassSet:
    classes = [_directai_class(f"classifier_configs[{i}]", c) for i, c in _configs(body, "classifier_configs")]
    return ClassSet(classes, templates="openai" if body.get("augment_examples", True) else None)


def _from_directai_detector(body: Mapping[str, Any]) -> ClassSet:
    classes = [
        _directai_class(f"detector_configs[{i}]", c, threshold=0.1) for i, c in _configs(body, "detector_configs")
    ]
    agnostic = body.get("class_agnostic_nms", True)
    return ClassSet(
        classes,
        templates="simple" if body.get("augment_examples", True) else None,
        nms=body.get("nms_threshold", 0.4),
        mode="agnostic" if agnostic else "class-wise",
    )


def _directai_class(where: str, value: object, threshold: float | None = None) -> MetaClass:
    body = _object(where, value)
    if threshold is not None:
        threshold = body.get("detection_threshold", threshold)
    return MetaClass(
        _required(where, body, "name"),
        _list(where, body, "examples_to_include"),
        _list(where, body, "examples_to_exclude", optional=True),
        threshold=threshold,
    )


def _configs(body: Mapping[str, Any], name: str) -> list[tuple[int, object]]:
    return list(enumerate(_list("the deploy body", body, name)))


def _object(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is {quoted(value)}; it must be a JSON object.")
    return value


def _required(where: str, body: Mapping[str, Any], name: str) -> Any:
    if name not in body:
        raise InputError(f"{where} has no {quoted(name)}; it is needed.")
    return body[name]


def _list(where: str, body: Mapping[str, Any], name: str, *, optional: bool = False) -> list[Any]:
    value = body.get(name, []) if optional else _required(where, body, name)
    if not isinstance(value, list):
        raise InputError(f"{where}.{name} is {quoted(value)}; it must be a list.")
    return value


def _only_known(where: str, body: Mapping[str, Any], known: frozenset[str]) -> None:
    for name in body:
        if name not in known:
            raise InputError(f"{where} has a field {quoted(name)}, which is not known; it may have {sorted(known)}.")
