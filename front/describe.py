"""Writes what the service says of /api/v1 as OpenAPI, from which `npm run types` makes src/openapi.ts.

python front/describe.py > front/openapi.json
"""

import json
import tempfile
from pathlib import Path

from clipsieve.back.app import create_app
from clipsieve.back.jobs import Jobs
from clipsieve.back.shelf import Shelf


def describe() -> str:
    """The description as JSON text."""

    def nothing(*_):
        raise NotImplementedError

    with tempfile.TemporaryDirectory() as folder:
        jobs = Jobs(Path(folder) / "jobs", nothing, temporary=True)
        app = create_app(Shelf(), fetch=nothing, jobs=jobs)
        whole = app.test_client().get("/openapi").get_json()
        jobs.close()
    whole["paths"] = {path: said for path, said in whole["paths"].items() if path.startswith("/api/v1/")}
    return json.dumps(whole, indent=1)


if __name__ == "__main__":
    print(describe())
