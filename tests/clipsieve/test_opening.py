import clipsieve
from clipsieve import MetaClass
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from tests.inference.pictures import jpeg, write_tree


def test_open_loads_the_model_when_a_question_first_needs_it(tmp_path):
    write_tree(tmp_path / "photos", {f"{i}.jpg": jpeg(i) for i in range(6)})
    embed_collection(open_source(tmp_path / "photos"), FakeEmbedder(), tmp_path / "c")
    asked = []

    def load(name, *, device):
        asked.append((name, device))
        return FakeEmbedder(name=name)

    with clipsieve.open(tmp_path / "c", device="cpu", load=load) as collection:
        assert collection.count == 6
        assert asked == []
        answer = collection.search(MetaClass("bus", ["red bus"], ["red truck"]), k=40)
        assert answer.claim == "exact"
        collection.search(MetaClass("bus", ["red bus"]), k=1)
    assert asked == [("fake", "cpu")]
