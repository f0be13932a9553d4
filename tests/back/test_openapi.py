"""schemathesis asks every route, by what /openapi says of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from clipsieve.inference.embedder import load_embedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from tests.back.service import running
from tests.inference.pictures import jpeg, write_tree

# What a schema cannot say: a question that names a class which the set does not have, an image that is none.
NEVER = "positive_data_acceptance"
# The result of a job is not there before it is done, and one that was cancelled can still be looked at.
OWN = f"{NEVER},ensure_resource_availability,use_after_free"
# clip-retrieval's and DirectAI's clients send what their services take, whatever their schemas say; in a form nobody
# can tell a list from its entries.
LENIENT = f"{NEVER},negative_data_rejection"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    base = tmp_path_factory.mktemp("described")
    root = write_tree(base / "in", {f"{i}.jpg": jpeg(i) for i in range(5)})
    embed_collection(open_source(root), load_embedder("mini"), base / "photos.clip")
    with running(base / "photos.clip", "--preload") as service:
        yield service


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paths", "excluded"), [("^/api/v1/(?!uploads)", OWN), ("^/(api/v1/uploads|(?!api/v1|detect))", LENIENT)]
)
def test_every_route_answers_as_it_is_described(service, tmp_path, paths, excluded):
    # /detect is left out: it has no detector here, which it says with a 503.
    program = Path(sys.executable).with_name("schemathesis")
    words = [program, "run", f"{service.url}/openapi", "--include-path-regex", paths, "--exclude-checks", excluded]
    options = ["--max-examples", "40", "--seed", "1", "--no-color"]
    done = subprocess.run([*words, *options], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    assert service.process.poll() is None
