"""What all tests of this room share."""

import copy
import functools

import pytest
from flask_openapi import utils


@pytest.fixture(autouse=True, scope="session")
def schemas_made_once():
    """Hundreds of apps are made of the same models: each model's JSON schema is made once and copied."""
    made = functools.cache(utils.get_model_schema)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(utils, "get_model_schema", lambda *args, **named: copy.deepcopy(made(*args, **named)))
        yield
