import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clipsieve.errors import InputError
from clipsieve.inference.tensors import read_tensors


def test_both_formats_hold_the_same(tmp_path):
    state = {"linear_1.weight": torch.randn(3, 2, dtype=torch.bfloat16), "linear_1.bias": torch.randn(3)}
    torch.save(state, tmp_path / "head.pth")
    save_file(state, tmp_path / "head.safetensors")
    for file in ("head.pth", "head.safetensors"):
        found = read_tensors(tmp_path / file)
        assert found.keys() == state.keys()
        for name, array in found.items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, state[name].float().numpy())


def test_what_is_no_state_dict_is_refused_and_not_run(tmp_path):
    torch.save(torch.nn.Linear(2, 1), tmp_path / "module.pth")  # a pickle of code
    torch.save({"epoch": 1, "model": {}}, tmp_path / "training.pth")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x10")
    for file, words in [
        ("module.pth", "no file of weights alone"),
        ("training.pth", "something else than a state dict"),
        ("damaged.safetensors", "no file of weights alone"),
        ("gone.pth", "does not exist"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            read_tensors(tmp_path / file)
        assert "\n" not in str(caught.value)
