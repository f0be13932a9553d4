"""Jobs of /api/v1: begun, watched, cancelled, and their results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Response, send_file
from flask_openapi import APIBlueprint, Tag

from clipsieve.back import api_shapes as shapes
from clipsieve.back import schema
from clipsieve.back.api import Stored
from clipsieve.back.boxes import Boxes
from clipsieve.back.job import SKIPPED, Job
from clipsieve.back.jobs import Jobs
from clipsieve.back.notes import note_header
from clipsieve.back.offers import notes_on
from clipsieve.back.shapes import file
from clipsieve.back.shelf import Served, Shelf
from clipsieve.back.work import Task, title_of
from clipsieve.errors import NotFound

TAG = Tag(name="jobs", description="Long work: labelling a collection, exporting the items of a question.")

MIMETYPES = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "tar": "application/x-tar",
    "zip": "application/zip",
}


def blueprint(shelf: Shelf, jobs: Jobs, stored: Callable[[Served], Stored], boxes: Boxes) -> APIBlueprint:
    """The routes. `stored` gets a collection's class sets by name, `boxes` embeds classes whose boxes are wanted."""
    routes = APIBlueprint("jobs", __name__, url_prefix="/api/v1", abp_tags=[TAG])

    @routes.post("/jobs", summary="Begin a job", responses=shapes.BEGUN)
    def begin(body: schema.NewJob) -> Any:
        served = shelf[body.collection]
        task = Task.of(served, body, stored(served), boxes)
        job = jobs.add(body.kind, served.name, body.format, title_of(body, served.name, task), task.write)
        notes = () if task.classes is None else notes_on(served, task.classes, body)
        return {"id": job.id}, 202, {"Location": f"/api/v1/jobs/{job.id}", **note_header(notes)}

    @routes.get("/jobs", summary="All jobs, the newest first", responses=shapes.JOBS)
    def every() -> Any:
        return {"jobs": [to_json(job) for job in jobs.all()]}

    @routes.get("/jobs/<id>", summary="How far a job is", responses=shapes.ONE_JOB)
    def one(path: schema.JobPath) -> Any:
        return to_json(jobs[path.id])

    @routes.delete(
        "/jobs/<id>", summary="Cancel a job, or remove a finished one with its result", responses=shapes.CANCELLED
    )
    def cancel(path: schema.JobPath) -> Any:
        job = jobs.cancel(path.id)
        return {"id": path.id, "state": "removed" if job is None else "cancelled"}

    @routes.get("/jobs/<id>/result", summary="What came of a job, as a file", responses=file(*MIMETYPES.values()))
    def result(path: schema.JobPath) -> Response:
        job = jobs[path.id]
        if job.result is None:
            raise NotFound(f"The job {job.id} has no result; it is {job.state}.")
        suffix = job.result.rpartition(".")[2]
        return _download(jobs.path(job.id, job.result), MIMETYPES[suffix], f"{job.title}.{suffix}")

    @routes.get(
        "/jobs/<id>/skipped",
        summary="The items that a result is without, and why, as CSV",
        responses=file("text/csv"),
    )
    def skipped(path: schema.JobPath) -> Response:
        job = jobs[path.id]
        if not job.skipped:
            raise NotFound(f"The job {job.id} has skipped nothing; it is {job.state}.")
        return _download(jobs.path(job.id, SKIPPED), "text/csv", f"{job.title}-skipped.csv")

    return routes


def _download(file: Path, mimetype: str, name: str) -> Response:
    try:
        # Of a relative path, Flask would look beside its own code and not where the service was started.
        return send_file(file.absolute(), mimetype, as_attachment=True, download_name=name)
    except FileNotFoundError as error:
        raise NotFound("The file is gone; jobs that are finished go with theirs, so begin it again.") from error


def to_json(job: Job) -> dict[str, Any]:
    """A job as the page sees it. Times are seconds since 1970; items a second, seconds to go and bytes are numbers."""
    url = f"/api/v1/jobs/{job.id}"
    fields = ("id", "kind", "collection", "format", "state", "stage", "done", "total", "rate", "eta_s", "message")
    return {
        **{name: getattr(job, name) for name in (*fields, "made", "began", "ended", "items", "bytes", "skipped")},
        "result_url": None if job.result is None else f"{url}/result",
        "skipped_url": f"{url}/skipped" if job.skipped else None,
    }
