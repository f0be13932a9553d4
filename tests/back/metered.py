"""An application with all that `clipsieve back` makes for it, and what its figures say."""

import json

from prometheus_client.parser import text_string_to_metric_families

from clipsieve.back.app import create_app
from clipsieve.back.gate import Gate
from clipsieve.back.meters import Meters
from clipsieve.back.protect import Protection, State
from clipsieve.back.shelf import Served, Shelf
from clipsieve.index.collection import open_collection
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.parts import Parts
from clipsieve.served_models import Models
from tests.back.made import DIM, FAKE
from tests.inference.pictures import jpeg


class Embedder(FakeEmbedder):
    """One that fails for a text, and calls what it is given in the midst of another."""

    def __init__(self, **options):
        super().__init__(DIM, **options)
        self.meanwhile = lambda: None

    def tokenize(self, texts):
        if "fail" in texts:
            raise ZeroDivisionError("of the test")
        if "meanwhile" in texts:
            self.meanwhile()
        return super().tokenize(texts)


class Service:
    """An application over one collection, with all that `clipsieve back` makes for it."""

    def __init__(self, folder):
        self.meters, self.gate, self.state = Meters(), Gate(2, 2, 0.01), State()
        self.embedder = Embedder(name=FAKE.model.name)
        self.models = Models(Parts(lambda name, **_: self.embedder), "cpu", self.meters.prepared)
        self.collection = open_collection(folder, load=self.models.get)
        protection = Protection(gate=self.gate, state=self.state)
        shelf = Shelf([Served("photos", self.collection)])
        app = create_app(
            shelf, fetch=lambda url: jpeg(1), meters=self.meters, protection=protection, models=self.models.figures
        )
        self.client = app.test_client()

    def send(self, path, data=None, **headers):
        """GET or POST; what is answered is read to its end, which gives the place back."""
        return self.client.open(
            path, method="GET" if data is None else "POST", data=data, headers=headers, buffered=True
        )

    def ask(self, status=200, **question):
        body = {"modality": "image", "num_images": 3, "indice_name": None, **question}
        assert self.send("/knn-service", json.dumps(body)).status_code == status

    def samples(self):
        """(Sample's name, labels) -> value, as Prometheus reads them."""
        text = self.send("/metrics").get_data(as_text=True)
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    def close(self):
        self.collection.close()
        self.models.close()
