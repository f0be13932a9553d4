"""`clipsieve.Client`: a running service asked over HTTP, by clip-retrieval's protocol and by /api/v1.

The constructor and `query` are those of clip-retrieval's ClipClient: `from clipsieve import Client as ClipClient`. The
other methods are those of an open collection.
"""

import base64
import enum
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import httpx2

import clipsieve
from clipsieve import classset
from clipsieve.errors import ClipsieveError, InputError, NotFound, Overloaded, ServiceUnavailable, TimedOut, quoted
from clipsieve.types import ClassSet, Example, Hit, MetaClass, QueryResult

PAGE = 1000
"""Hits asked for at a time; a service gives no more."""

Question = MetaClass | ClassSet | tuple[Sequence[str], Sequence[str]]
"""A class, one of a set by `name`, or positive and negative texts."""

Kind = Literal["image", "text"]
View = Literal["matched", "rejected", "below"]
Order = Literal["score", "margin", "new"]
Veto = Literal["hard", "soft"]


class Modality(enum.Enum):
    """What a question is compared with."""

    IMAGE = "image"
    TEXT = "text"


class Client:
    """A service at an address. Safe to use from several threads at once; a context manager.

    url                    of the service, or of its /knn-service as clip-retrieval's client takes it
    indice_name            the collection; None for the first one
    use_mclip              `query` embeds texts with the service's multilingual model
    aesthetic_score        `query` leans towards images of this rating, 0 to 9, where the service has ratings
    aesthetic_weight       how far
    modality               what `query` compares with: Modality or its value
    num_images             how many `query` returns
    deduplicate            `query` leaves near-duplicates out
    use_safety_model       `query` leaves out what the service flags as unsafe
    use_violence_detector  likewise as violent
    token                  sent as a bearer token
    timeout                seconds that the service may be silent

    Every method raises InputError for what the service refuses, NotFound for what it does not have, Overloaded where it
    has no place (`retry_after` says when to come back), ServiceUnavailable where it cannot be reached, and TimedOut.
    """

    def __init__(
        self,
        url: str,
        indice_name: str | None = None,
        use_mclip: bool = False,
        aesthetic_score: int | None = 9,
        aesthetic_weight: float = 0.5,
        modality: Modality | Kind = Modality.IMAGE,
        num_images: int = 40,
        deduplicate: bool = True,
        use_safety_model: bool = True,
        use_violence_detector: bool = True,
        *,
        token: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.url = url
        self.indice_name = indice_name
        self.use_mclip = use_mclip
        self.aesthetic_score = aesthetic_score
        self.aesthetic_weight = aesthetic_weight
        self.modality = Modality(modality).value
        self.num_images = num_images
        self.deduplicate = deduplicate
        self.use_safety_model = use_safety_model
        self.use_violence_detector = use_violence_detector
        self._root = url.rstrip("/").removesuffix("/knn-service").rstrip("/")
        if not self._root.startswith(("http://", "https://")):
            raise InputError(f"{quoted(url)} is no address of a service; write for instance http://127.0.0.1:1234.")
        self._timeout = timeout
        headers = {"User-Agent": f"clipsieve/{clipsieve.__version__}"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx2.Client(headers=headers, timeout=timeout)

    def query(
        self,
        text: str | None = None,
        image: str | os.PathLike[str] | None = None,
        embedding_input: Sequence[float] | None = None,
    ) -> list[dict[str, Any]]:
        """The items nearest to a text, an image (its path or its URL) or a vector, as clip-retrieval's client has them.

        Each is a dict of "id", "similarity" and the columns that the service answers with, such as "url".
        """
        if text and image:
            raise InputError("A text and an image were given; only one of them can be asked with.")
        question: dict[str, Any] = dict.fromkeys(("text", "image", "image_url", "embedding_input"))
        if text:
            question["text"] = text
        elif image and str(image).startswith("http"):
            question["image_url"] = str(image)
        elif image:
            question["image"] = base64.b64encode(_read(image)).decode("ascii")
        elif embedding_input is not None and len(embedding_input):
            question["embedding_input"] = [float(value) for value in embedding_input]
        else:
            raise InputError("There is no question; give a text, an image or an embedding_input.")
        options = {
            "deduplicate": self.deduplicate,
            "use_safety_model": self.use_safety_model,
            "use_violence_detector": self.use_violence_detector,
            "indice_name": self.indice_name,
            "use_mclip": self.use_mclip,
            "aesthetic_score": self.aesthetic_score,
            "aesthetic_weight": self.aesthetic_weight,
            "modality": self.modality,
            "num_images": self.num_images,
            "num_result_ids": self.num_images,
        }
        found: list[dict[str, Any]] = self._json("POST", "/knn-service", json=question | options)
        return found

    def search(
        self,
        question: Question,
        k: int = 40,
        threshold: float | None = None,
        view: View = "matched",
        *,
        name: str | None = None,
        where: str | None = None,
        dedup: bool = False,
        modality: Kind = "image",
        order: Order = "score",
        veto: Veto = "soft",
    ) -> QueryResult:
        """The best k items of a class; every option is that of `Collection.search`."""
        if k < 0:
            raise InputError(f"k is {k}; give a number from 0 on.")
        body = self._body(question, threshold, view, name, where, dedup, modality, order, veto)
        hits: list[Hit] = []
        for page in self._pages(body, min(max(k, 1), PAGE)):
            hits += map(_hit, page["hits"])
            if len(hits) >= k:
                break
        return QueryResult(
            tuple(hits[:k]), page["claim"], page["recall"], page["timings_ms"], tuple(page.get("notes", ()))
        )

    def search_all(
        self,
        question: Question,
        threshold: float | None = None,
        view: View = "matched",
        *,
        name: str | None = None,
        where: str | None = None,
        dedup: bool = False,
        modality: Kind = "image",
        order: Order = "score",
        veto: Veto = "soft",
        page: int = 100,
    ) -> Iterator[Hit]:
        """All items of a class, best first, asked for `page` at a time as they are wanted.

        InputError where the collection changes before the last page.
        """
        body = self._body(question, threshold, view, name, where, dedup, modality, order, veto)
        for one in self._pages(body, page):
            yield from map(_hit, one["hits"])

    def explain(
        self, question: Question, id: int, *, name: str | None = None, modality: Kind = "image"
    ) -> tuple[MetaClass, list[float], list[float]]:
        """The class, and an item's score with each of its positives and negatives: why it stands where it does."""
        asked, meta = _asked(question, name)
        body = {"collection": self.indice_name, **asked, "id": str(id), "modality": modality}
        said = self._json("POST", "/api/v1/explain", json=body)
        sides = [{_example(one["ex"]): one["score"] for one in said[side]} for side in ("positive", "negative")]
        return meta, [sides[0][e] for e in meta.positive], [sides[1][e] for e in meta.negative]

    def items(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """The metadata of these items, in order: "id", "key", and the collection's columns."""
        rows = [self._json("GET", f"/api/v1/items/{int(id)}", params=self._named()) for id in ids]
        return [{"id": int(row["id"]), "key": row["key"], **row["metadata"]} for row in rows]

    def image(self, id: int, size: int | None = None) -> bytes:
        """The encoded image of an item, or a small one whose longer side has `size` pixels (64, 128, ..., 1024)."""
        params = self._named() | ({} if size is None else {"size": str(size)})
        content: bytes = self._ask("GET", f"/api/v1/items/{int(id)}/image", params=params).content
        return content

    def add_example_image(self, data: bytes) -> str:
        """Send an encoded image so that it may be an example; its content hash, which Example takes."""
        said = self._json("POST", "/api/v1/uploads", files={"data": ("image", data)}, data=self._named())
        return str(said["id"])

    def info(self) -> dict[str, Any]:
        """What is served: the service's version, its collections, its limits."""
        found: dict[str, Any] = self._json("GET", "/api/v1/info")
        return found

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _body(
        self,
        question: Question,
        threshold: float | None,
        view: View,
        name: str | None,
        where: str | None,
        dedup: bool,
        modality: Kind,
        order: Order,
        veto: Veto,
    ) -> dict[str, Any]:
        asked, _ = _asked(question, name)
        options = {"threshold": threshold, "view": view, "where": where, "dedup": dedup, "modality": modality}
        return {"collection": self.indice_name, **asked, **options, "sort": order, "veto": veto}

    def _pages(self, body: Mapping[str, Any], limit: int) -> Iterator[dict[str, Any]]:
        cursor = None
        while True:
            page = self._json("POST", "/api/v1/search", json={**body, "limit": limit, "cursor": cursor})
            yield page
            cursor = page["next"]
            if cursor is None:
                return

    def _named(self) -> dict[str, str]:
        return {} if self.indice_name is None else {"collection": self.indice_name}

    def _json(self, method: str, path: str, **request: Any) -> Any:
        answer = self._ask(method, path, **request)
        try:
            return answer.json()
        except ValueError:
            raise ClipsieveError(f"{answer.url} answers, but not with JSON; is it a clipsieve service?") from None

    def _ask(self, method: str, path: str, **request: Any) -> httpx2.Response:
        try:
            answer = self._http.request(method, self._root + path, **request)
        except httpx2.TimeoutException as error:
            raise TimedOut(f"{self._root} did not answer in {self._timeout:g} s; raise `timeout`.") from error
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            said = str(error) or type(error).__name__
            raise ServiceUnavailable(
                f"{self._root} cannot be reached ({said}); is the address right and the service running?"
            ) from error
        if not answer.is_success:
            raise _error(answer)
        return answer


def _asked(question: Question, name: str | None) -> tuple[dict[str, Any], MetaClass]:
    """A question as /api/v1 takes it, and its class."""
    if isinstance(question, tuple) and len(question) == 2:
        question = MetaClass("question", *question)
    if isinstance(question, MetaClass):
        (value,) = classset.to_json(ClassSet([question], "background"))["classes"]  # a set of one may mix
        return {"class": value}, question
    if not isinstance(question, ClassSet):
        raise InputError(f"{quoted(question)} is no question; give a MetaClass, a ClassSet, or two lists of texts.")
    classes = {meta.name: meta for meta in question.classes}
    if name is None and len(classes) > 1:
        raise InputError(f"The set holds {len(classes)} classes; name one: {quoted(', '.join(classes), '')}.")
    if name is not None and name not in classes:
        raise NotFound(f"The set has no class {quoted(name)}; it has {quoted(', '.join(classes), '')}.")
    meta = question.classes[0] if name is None else classes[name]
    return {"set": classset.to_json(question), "class": meta.name}, meta


def _hit(value: Mapping[str, Any]) -> Hit:
    negative = None if value["neg"] is None else _example(value["neg"]["ex"])
    margin = math.inf if negative is None else value["margin"]
    return Hit(int(value["id"]), value["key"], value["score"], margin, _example(value["pos"]["ex"]), negative)


def _example(value: str | Mapping[str, Any]) -> Example:
    return classset.example_from_json("the service's answer", value)


def _read(image: str | os.PathLike[str]) -> bytes:
    path = Path(image)
    if not path.is_file():
        raise InputError(f"The image {path} is not there; check the path.")
    return path.read_bytes()


def _error(answer: httpx2.Response) -> ClipsieveError:
    """What a refusal is here, with the service's sentence where it gave one."""
    sentence = _sentence(answer) or f"{answer.url} answered {answer.status_code}; is it a clipsieve service?"
    if answer.status_code in (429, 503):
        after = answer.headers.get("Retry-After", "")
        return Overloaded(sentence, float(after) if after.isdecimal() else 1.0)
    if answer.status_code == 404:
        return NotFound(sentence)
    return InputError(sentence) if answer.status_code < 500 else ClipsieveError(sentence)


def _sentence(answer: httpx2.Response) -> str | None:
    """The message in {"message": ...} or {"error": {"message": ...}}."""
    try:
        value = answer.json()
    except ValueError:
        return None
    inner = value.get("error", value) if isinstance(value, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else None
    return message if isinstance(message, str) else None
