import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from clipsieve.errors import InputError
from clipsieve.index.examples import unit_rows
from clipsieve.index.head import BLOCK, H14, make_network, make_prompts

DIM = 24


class Small(nn.Module):
    """LAION's for ViT-B/32 and ViT-L/14, of other widths."""

    def __init__(self, widths=(DIM, 8, 16, 1)):
        super().__init__()
        self.norm = nn.Module()
        self.norm.register_buffer("mean", torch.randn(widths[0]) / 10)
        self.norm.register_buffer("variance", torch.rand(widths[0]) / 10)
        self.count = len(widths) - 1
        for i in range(self.count):
            setattr(self, f"linear_{i + 1}", nn.Linear(widths[i], widths[i + 1]))

    def forward(self, x):
        norm = dict(self.norm.named_buffers())
        x = (x - norm["mean"]) / (norm["variance"].sqrt() + 1e-10)
        for i in range(1, self.count):
            x = torch.relu(getattr(self, f"linear_{i}")(x))
        return torch.sigmoid(getattr(self, f"linear_{self.count}")(x))


class Large(nn.Module):
    """LAION's for ViT-H/14, of other widths."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential()
        for before, after in zip((DIM, 32, 64, 32, 16), (32, 64, 32, 16, 8), strict=True):
            self.layers.extend([nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.2)])
        self.layers.extend([nn.Linear(8, 4), nn.Linear(4, 1)])

    def forward(self, x):
        return self.layers(x)


def vectors(count, dim=DIM):
    return unit_rows(np.random.default_rng(1).normal(size=(count, dim)).astype(np.float32))


def arrays(module):
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("kind", [Small, Large, lambda: nn.Linear(DIM, 1)])
@pytest.mark.parametrize("count", [0, 1, BLOCK + 1])
def test_scores_are_those_of_torch(kind, count):
    torch.manual_seed(0)
    module = kind().eval()
    head = make_network(arrays(module), "head.pth")
    with torch.no_grad():
        expected = module(torch.from_numpy(vectors(count)))[:, 0].numpy()
    assert head.dim == DIM
    np.testing.assert_allclose(head.scores(vectors(count)), expected, atol=1e-6)


@pytest.mark.slow
def test_scores_are_those_of_clip_retrievals_own(their_python, tmp_path):
    """Its model for ViT-H/14, of random weights where it keeps what it fetched."""
    (source,) = their_python.parents[1].glob("lib/*/site-packages/clip_retrieval/h14_nsfw_model.py")
    spec = importlib.util.spec_from_file_location("h14_nsfw_model", source)
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    sizes = [1024, 1024, 2048, 1024, 256, 128, 16, 1]
    torch.manual_seed(0)
    state = {}
    for i, before, after in zip(H14, sizes, sizes[1:], strict=False):
        for name, tensor in nn.Linear(before, after).state_dict().items():
            state[f"layers.{i}.{name}"] = tensor
    (tmp_path / "h14_nsfw_model").mkdir()
    torch.save(state, tmp_path / "h14_nsfw_model" / "model.pt")
    expected = theirs.H14_NSFW_Detector(cache_folder=str(tmp_path)).predict(vectors(50, 1024), batch_size=50)
    head = make_network({name: tensor.numpy() for name, tensor in state.items()}, "model.pt")
    np.testing.assert_allclose(head.scores(vectors(50, 1024)), expected[:, 0], atol=1e-6)


def test_what_scores_above_the_threshold_is_flagged():
    rows = vectors(300)
    state = arrays(nn.Linear(DIM, 1))
    scores = make_network(state, "head.pth").scores(rows)
    for threshold in (0.0, float(scores[7])):
        np.testing.assert_array_equal(make_network(state, "head.pth", threshold).flags(rows), scores > threshold)


def test_prompts_flag_what_is_nearest_to_the_second():
    prompts, rows = vectors(3)[::-1], vectors(200)
    flagged = make_prompts(prompts.astype(np.float16), "prompts.npy").flags(rows)
    nearest = [
        max(range(3), key=lambda i: float(row @ prompts[i].astype(np.float16).astype(np.float32))) for row in rows
    ]
    assert flagged.tolist() == [i == 1 for i in nearest]
    assert 20 < flagged.sum() < 150


def changed(**arrays_):
    state = arrays(Small())
    for name, array in arrays_.items():
        name = name.replace("__", ".")
        state.pop(name, None)
        if array is not None:
            state[name] = np.asarray(array, np.float32)
    return state


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "not laid out"),
        (arrays(nn.Sequential(nn.Linear(DIM, 4), nn.Dropout(), nn.Linear(4, 1))), "not laid out"),
        (arrays(nn.Linear(DIM, 1, bias=False)), "not laid out"),
        (changed(linear_2__bias=None), "not laid out"),
        (changed(norm__mean=None), "not laid out"),
        (changed(linear_1__running_mean=[1.0]), "not laid out"),
        (arrays(nn.Linear(DIM, 2)), r"single number \(weight \(2, 24\)"),
        (changed(linear_2__bias=[1.0] * 8), "follow each other"),
        (changed(linear_3__weight=1.0), "follow each other"),
        (changed(norm__mean=[0.0] * 8), "follow each other"),
        (changed(norm__mean=[np.nan] * DIM), "no number"),
    ],
)
def test_other_layouts_are_refused(state, words):
    with pytest.raises(InputError, match=rf"^head\.pth .*{words}"):
        make_network(state, "head.pth")


@pytest.mark.parametrize("array", [np.zeros(5), np.zeros((1, 5)), np.zeros((2, 5), np.int64), np.full((2, 5), np.nan)])
def test_what_are_no_prompts_is_refused(array):
    with pytest.raises(InputError, match=r"prompts\.npy holds"):
        make_prompts(array, "prompts.npy")
