"""KServe's protocol v2 as Triton speaks it: /v2/health, /v2/models, /v2/repository.

Errors are {"error": ...}. What is answered with 500 there although the request was wrong is a 400 here.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from flask import Response, request
from flask_openapi import APIBlueprint, Tag

import clipsieve
from clipsieve.back import kserve_schema as schema
from clipsieve.back.guard import for_all, reads, unpacks
from clipsieve.back.kserve_models import DEFAULT_LEVEL, LEVELS, ServedModel, run, served_models
from clipsieve.back.kserve_stats import Answers, model_stats
from clipsieve.back.kserve_tensors import Tensor, pack, packing, read_request, unpack, write_answer
from clipsieve.back.protect import State
from clipsieve.errors import ClipsieveError, InputError, NotFound, quoted

TAG = Tag(name="KServe v2", description="Embeddings by KServe's protocol v2, as Triton speaks it.")
VERSION = "1"
EXTENSIONS = (
    "classification",
    "model_repository",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
)
LENGTH = "Inference-Header-Content-Length"


class Encoders:
    """The models of one embedder, which is made when the first of them is asked for.

    embedder  gives it, batched for many threads
    """

    def __init__(self, embedder: Callable[[], Any]) -> None:
        self._embedder = embedder
        self._models: dict[str, ServedModel] | None = None
        self.answers = Answers()

    @property
    def embedder(self) -> Any:
        """The embedder."""
        return self._embedder()

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """The models by name."""
        if self._models is None:
            self._models = served_models(self.embedder)
        return self._models

    @property
    def made(self) -> Mapping[str, ServedModel]:
        """The models by name as far as they are made already: none, or all of them."""
        return self._models or {}

    def find(self, name: str, version: str = VERSION) -> ServedModel:
        """The model of that name. NotFound for another, and for other versions than the one there is."""
        model = self.models.get(name)
        if model is None:
            raise NotFound(f"The model {quoted(name)} is not known; there is {', '.join(self.models)}.")
        if version != VERSION:
            raise NotFound(f"The model {quoted(name)} has no version {quoted(version)}, only {quoted(VERSION)}.")
        return model

    def statistics(self, name: str) -> dict[str, Any]:
        """What a model did."""
        counts = self.embedder.statistics().names.get(name)
        return model_stats(name, VERSION, counts, self.answers.of(name))


def blueprint(encoders: Encoders, state: State, max_bytes: int) -> APIBlueprint:
    """The routes. `max_bytes` bounds a body once it is unpacked."""
    routes = APIBlueprint("kserve", __name__, url_prefix="/v2", abp_tags=[TAG])

    @routes.get("", summary="What the server is", responses=schema.SERVER)
    def server() -> Response:
        return _answer({"name": "clipsieve", "version": clipsieve.__version__, "extensions": EXTENSIONS})

    @routes.get("/health/live", summary="Whether the process answers", responses=schema.EMPTY)
    @for_all
    def live() -> Response:
        return _empty(200)

    @routes.get("/health/ready", summary="Whether models can be asked", responses=schema.EMPTY)
    @for_all
    def ready() -> Response:
        return _empty(200 if state.status == "ok" else 503)

    @routes.get("/models/stats", summary="What all models did", responses=schema.STATISTICS)
    def all_statistics() -> Response:
        return _answer({"model_stats": [encoders.statistics(name) for name in encoders.models]})

    @routes.post("/repository/index", summary="The models", responses=schema.INDEX)
    @reads
    def index() -> Response:
        return _answer([{"name": name, "version": VERSION, "state": "READY"} for name in encoders.models])

    @routes.post("/repository/models/<name>/<change>", summary="Refused: models stay", responses=schema.REFUSED)
    @reads
    def control(path: schema.ControlPath) -> Response:
        encoders.find(path.name)
        raise InputError(f"{path.change}: the models are those that the service was started with; start another one.")

    def metadata(model: ServedModel) -> Response:
        tensors = {"inputs": model.inputs, "outputs": (model.output,)}
        described = {key: [_metadata(tensor) for tensor in some] for key, some in tensors.items()}
        return _answer({"name": model.name, "versions": [VERSION], "platform": "python", **described})

    def infer(model: ServedModel) -> Response:
        body = unpack(request.get_data(cache=False), request.headers.get("Content-Encoding"), max_bytes)
        asked = read_request(body, request.headers.get(LENGTH), model.inputs, model.output, model.max_rows)
        rows = run(model, asked)
        start = time.monotonic_ns()
        data, length = write_answer(model.name, VERSION, asked, model.output, rows)
        answer = _packed(data, length, packing(request.headers.get("Accept-Encoding", "")))
        encoders.answers.wrote(model.name, time.monotonic_ns() - start)
        return answer

    def config(model: ServedModel) -> Response:
        return _answer(_config(model, encoders.embedder))

    def statistics(model: ServedModel) -> Response:
        return _answer({"model_stats": [encoders.statistics(model.name)]})

    def is_ready(model: ServedModel) -> Response:
        return _empty(200)

    _both(routes.get, encoders, "", metadata, "Inputs and outputs of a model", schema.METADATA)
    _both(routes.get, encoders, "/ready", is_ready, "Whether a model can be asked", schema.EMPTY)
    _both(routes.get, encoders, "/config", config, "How a model is served", schema.CONFIG)
    _both(routes.get, encoders, "/stats", statistics, "What a model did", schema.STATISTICS)
    _both(routes.post, encoders, "/infer", infer, "Embed", schema.ANSWER, schema.REQUEST)
    return routes


def error_answer(error: ClipsieveError, status: int) -> Response:
    """An error in the protocol's shape."""
    return _answer({"error": str(error)}, status)


def _both(
    method: Callable[..., Any],
    encoders: Encoders,
    path: str,
    answer: Callable[[ServedModel], Response],
    summary: str,
    responses: dict[str, Any],
    body: dict[str, Any] | None = None,
) -> None:
    """The route of a model, and the same of one of its versions."""
    more: dict[str, Any] = {} if body is None else {"request_body": body}

    def find(name: str, version: str) -> ServedModel:
        if path != "/ready":
            return encoders.find(name, version)
        try:
            return encoders.find(name, version)
        except NotFound as error:  # as there
            raise InputError(f"It is not ready: {error}") from error

    def of_model(path: schema.ModelPath) -> Response:
        return answer(find(path.name, VERSION))

    def of_version(path: schema.VersionPath) -> Response:
        return answer(find(path.name, path.version))

    for function, rule in ((of_model, "/models/<name>"), (of_version, "/models/<name>/versions/<version>")):
        function.__name__ = f"{answer.__name__}_{function.__name__}"
        method(f"{rule}{path}", summary=summary, responses=responses, **more)(unpacks(reads(function)))


def _metadata(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": [-1, *tensor.dims]}


def _config(model: ServedModel, embedder: Any) -> dict[str, Any]:
    options = embedder.options

    def described(tensor: Tensor, more: Mapping[str, Any]) -> dict[str, Any]:
        kind = "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"
        return {"name": tensor.name, "data_type": kind, "dims": tensor.dims, **more}

    optional = {"format": "FORMAT_NONE", "optional": len(model.inputs) > 1}
    timeout = int((options.timeout or 0) * 1e6)
    return {
        "name": model.name,
        "platform": "",
        "backend": "python",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": model.max_rows,
        "input": [described(tensor, optional) for tensor in model.inputs],
        "output": [described(model.output, {"label_filename": ""})],
        "dynamic_batching": {
            "preferred_batch_size": [options.max_batch],
            "max_queue_delay_microseconds": int(options.queue_delay * 1e6),
            "preserve_ordering": False,
            "priority_levels": LEVELS,
            "default_priority_level": DEFAULT_LEVEL,
            "default_queue_policy": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": timeout,
                "allow_timeout_override": True,
                "max_queue_size": options.queue_limit,
            },
        },
        "instance_group": [{"name": f"{model.name}_0", "kind": "KIND_AUTO", "count": embedder.lanes, "gpus": []}],
        "parameters": {"model": {"string_value": embedder.model.name}},
        "model_warmup": [],
    }


def _packed(data: bytes, length: int | None, encoding: Any) -> Response:
    kind = "application/json" if length is None else "application/octet-stream"
    answer = Response(data if encoding is None else pack(data, encoding), mimetype=kind)
    if length is not None:
        answer.headers[LENGTH] = str(length)
    if encoding is not None:
        answer.headers["Content-Encoding"] = encoding
    return answer


def _answer(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, mimetype="application/json")


def _empty(status: int) -> Response:
    return Response(b"", status, mimetype="text/plain")
