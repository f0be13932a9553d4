"""The matrix product's threads."""

import numpy as np
from threadpoolctl import threadpool_info

from clipsieve.blas import one_thread_each


def threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))  # a BLAS is loaded
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_the_threads_come_back_with_the_last_holder() -> None:
    before = threads()
    first, second = one_thread_each(), one_thread_each()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # the one that came first ends first: the second still needs it
    assert threads() == {1}
    second.__exit__(None, None, None)
    assert threads() == before
    with one_thread_each():
        assert threads() == {1}
    assert threads() == before
