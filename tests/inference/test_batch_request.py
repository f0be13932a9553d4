import math

import pytest

from clipsieve.errors import InputError
from clipsieve.inference.batch_request import BatchOptions


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_batch", 0),
        ("queue_limit", 0),
        ("workers", 0),
        ("queue_delay", -1.0),
        ("queue_delay", math.nan),
        ("timeout", 0.0),
        ("timeout", math.inf),
    ],
)
def test_options_that_cannot_be_meant_are_refused(option, value):
    with pytest.raises(InputError, match=f"{option} {value}"):
        BatchOptions(**{option: value})
