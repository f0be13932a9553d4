"""What the routes of /api/v1 answer, as OpenAPI describes it; requests are described by `schema`."""

from clipsieve.back.schema import FORMATS
from clipsieve.back.shapes import Json, Responses, file, maybe, obj, result, said, some

TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
COUNT: Json = {"type": "integer", "minimum": 0}
SWITCH: Json = {"type": "boolean"}
TEXTS = some(TEXT)
ID = said(TEXT, "A whole number; JavaScript would round it.")
REVISION = said(TEXT, "Another one after each commit of the collection.")
PART = said(some(NUMBER), "x0, y0, x1 and y1 in 0..1 of the image, where a part of it is meant.")
PICTURE: Json = {"type": "object", "required": ["image"], "properties": {"image": TEXT, "box": PART}}
EXAMPLE: Json = said({"anyOf": [TEXT, PICTURE]}, "A text, or an image: an item's id or a content hash.")
SCORED = obj(ex=EXAMPLE, score=NUMBER)

HIT = obj(
    id=ID,
    key=TEXT,
    score=NUMBER,
    margin=said(maybe(NUMBER), "Best positive less best negative; null without negatives."),
    pos=SCORED,
    neg=maybe(SCORED),
    w=maybe(COUNT),
    h=maybe(COUNT),
    thumb=said(TEXT, "Where the small image is."),
)
BOX = said(
    some({"anyOf": [NUMBER, TEXT]}),
    "x, y, width and height in 0..1 of the image from its top left corner, the score, the class.",
)
FOUND: Json = {
    **HIT,
    "properties": {**HIT["properties"], "boxes": said(some(BOX), "Where boxes were asked for: by falling score.")},
}
KIND_RECALL = obj(
    source=said({"enum": ["image", "text"]}, "What the examples of such questions are."),
    shape=said(
        {"enum": ["one", "several", "negative", "filtered", "far"]},
        "One example, several, negatives beside them, a filter, or one that leaves little of what is near.",
    ),
    k=said(COUNT, "Answers of up to so many items."),
    effort=maybe(COUNT),
    recall=said(maybe(NUMBER), "As measured with such questions; null where rows are read in order instead."),
)
INDEX = obj(
    name=TEXT,
    kind=maybe(TEXT),
    recall=said(maybe(NUMBER), "The least of its kinds."),
    kinds=some(KIND_RECALL),
    rows=COUNT,
    search_ms=maybe(NUMBER),
    not_covered=COUNT,
)
FLAG = obj(
    name=TEXT,
    kind=said(
        {"enum": ["class", "prompts", "head"]},
        "What flags: a class of examples, the nearest of a few prompts, or a head that was trained for it.",
    ),
)
COLLECTION = obj(
    id=said(TEXT, "Its name."),
    count=COUNT,
    dim=COUNT,
    model=maybe(TEXT),
    removed=COUNT,
    licence=maybe(TEXT),
    indices=some(INDEX),
    columns=said(TEXTS, "Metadata that `where` may use."),
    read_only=SWITCH,
    modalities=TEXTS,
    multilingual=said(SWITCH, "Whether there is a model for texts of other languages."),
    ratings=said(some(COUNT), "Those that can be preferred."),
    flags=said(some(FLAG), "What can be left out."),
    detector=said(maybe(TEXT), "What found the regions, where there are any."),
    boxes=said(SWITCH, "Whether this service can say where in images a class is seen."),
    duplicates=said(SWITCH, "Whether near-duplicates are known, for `dedup`."),
    index_rev=REVISION,
)
INFO = result(
    obj(
        version=TEXT,
        collections=some(COLLECTION),
        limits={"type": "object", "additionalProperties": COUNT},
        formats=obj(**dict.fromkeys(FORMATS, TEXTS)),
    )
)
PAGE = result(
    obj(
        index_rev=REVISION,
        claim=said(
            {"enum": ["exact", "complete", "partial"]}, "What may be missing: nothing, what the index misses, or more."
        ),
        recall=said(maybe(NUMBER), "Of an index that is not exact, as measured with questions of this kind."),
        timings_ms={"type": "object", "additionalProperties": NUMBER},
        notes=said(TEXTS, "What of the question's texts the model leaves out, or does not know."),
        hits=some(FOUND),
        next=said(maybe(TEXT), "The cursor of the next page, if there is one."),
    )
)
DISTRIBUTION = result(
    obj(
        counts=obj(matched=COUNT, rejected=COUNT, below=COUNT),
        hist=obj(
            lo=NUMBER,
            hi=NUMBER,
            bins=said(
                some(some(COUNT)), "Items nearer a positive, and nearer a negative, per bin of the positives' score."
            ),
            ranked=said(some(COUNT), "Items per bin of the score that ranks them, from which `threshold` is counted."),
        ),
        estimated=said(SWITCH, "Counted on a sample."),
    )
)
EXPLAINED = result(
    obj(
        name=TEXT,
        accepted=SWITCH,
        score=NUMBER,
        margin=maybe(NUMBER),
        positive=some(SCORED),
        negative=some(SCORED),
    )
)
REGION = said(some(NUMBER), "x, y, width and height in 0..1 of the image.")
ITEM = result(
    obj(
        id=ID,
        key=TEXT,
        metadata={"type": "object"},
        regions=said(maybe(some(REGION)), "Where a detector sees anything, likeliest objects first, or null."),
    )
)
UPLOADED = result(
    obj(
        id=said(TEXT, "Its content hash, for an example: {image: ID}."),
        thumb=said(TEXT, "A small picture, data:image/webp."),
    )
)
SET = result(said({"type": "object"}, "A class set as it was stored."))
STORED = result(
    obj(name=TEXT, revision=TEXT, unknown=said(TEXTS, "Fields that are kept and not understood.")), "200", "201"
)
SETS = result(obj(sets=some(obj(name=TEXT, revision=TEXT))))
MARKS = result(obj(marks=some(obj(item=ID, **{"class": TEXT}, verdict=maybe(TEXT), set=maybe(TEXT), at=maybe(TEXT)))))
DELETED: Responses = {"204": {"description": "It is deleted."}}
IMAGE = file("image/*")
CHANGED = result(obj(changed=COUNT))
MARKED = obj(**HIT["properties"], example=obj(image=TEXT))
SUGGESTED = result(
    obj(
        index_rev=REVISION,
        **{"class": maybe(TEXT)},
        marks=obj(right=COUNT, wrong=COUNT),
        review=said(some(HIT), "To be marked next."),
        left=said(COUNT, "Items beyond these that are worth it."),
        positive=said(some(MARKED), "Marked right and not accepted."),
        negative=said(some(MARKED), "Marked wrong and accepted."),
    )
)
START = result(
    obj(
        texts=said(TEXTS, "What might be asked for."),
        items=some(obj(id=ID, key=TEXT, w=maybe(COUNT), h=maybe(COUNT), thumb=said(TEXT, "Where the small image is."))),
    )
)
LEARNED = result(
    obj(
        index_rev=REVISION,
        **{"class": maybe(TEXT)},
        marks=obj(right=COUNT, wrong=COUNT),
        wins=said(SWITCH, "Whether it foretells marks that it has not seen better than the texts do."),
        loss=said(maybe(NUMBER), "Of foretelling each mark from the others."),
        loss_alone=said(maybe(NUMBER), "The same of the texts."),
        hits=some({"type": "object"}),
        review=said(some(HIT), "To be marked next."),
    )
)
JOB = obj(
    id=TEXT,
    kind={"enum": list(FORMATS)},
    collection=TEXT,
    format=TEXT,
    state={"enum": ["waiting", "running", "done", "failed", "cancelled"]},
    stage=TEXT,
    done=COUNT,
    total=maybe(COUNT),
    rate=said(maybe(NUMBER), "Items a second."),
    eta_s=maybe(NUMBER),
    message=said(TEXT, "Why it failed."),
    made=said(NUMBER, "Seconds since 1970, as are the next two."),
    began=maybe(NUMBER),
    ended=maybe(NUMBER),
    items=maybe(COUNT),
    bytes=maybe(COUNT),
    skipped=COUNT,
    result_url=maybe(TEXT),
    skipped_url=maybe(TEXT),
)
ONE_JOB, JOBS = result(JOB), result(obj(jobs=some(JOB)))
BEGUN = result(obj(id=TEXT), "202")
CANCELLED = result(obj(id=TEXT, state={"enum": ["cancelled", "removed"]}))

FORM: Json = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["data"],
                "properties": {
                    "data": {"type": "string", "format": "binary", "description": "An encoded image."},
                    "collection": {**TEXT, "description": "Its name; the first one by default."},
                },
            }
        }
    },
}
