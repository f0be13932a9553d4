"""Files of weights, without the model that they are of."""

from pathlib import Path
from typing import Any

import numpy.typing as npt

from clipsieve.errors import InputError


def read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Name -> float32 array of a state dict: a `.safetensors` file, or what torch saved. Nothing in it is run.

    InputError where the file is neither, or holds something else.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give a file of weights.") from None
    except Exception as error:  # pickle, zip and both libraries have their own
        what = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"{path} is no file of weights alone, .safetensors or a state dict of torch ({what})."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise InputError(f"{path} holds something else than a state dict; save model.state_dict().")
    return {str(name): tensor.detach().float().numpy() for name, tensor in found.items()}
