from concurrent.futures import ThreadPoolExecutor

import pytest

from clipsieve.kept import Kept


def test_the_least_recently_used_is_forgotten_first():
    kept, made = Kept(5, len), []

    def get(key, size=2):
        def make():
            made.append(key)
            return "x" * size

        return kept.get(key, make)

    for key in ("a", "b", "a", "c", "a", "b"):  # c drives out b, and b then c
        assert get(key) == "xx"
    assert made == ["a", "b", "c", "b"]
    assert get("large", 9) == get("large", 9)  # alone in what it may hold
    get("a")
    assert made == ["a", "b", "c", "b", "large", "a"]


def test_many_who_ask_for_the_same_get_it_made_once():
    kept, made = Kept(100, len), []

    def make():
        made.append("made")
        return str(len(made))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: kept.get("a", make), range(64)))
    assert found == ["1"] * 64


def test_what_could_not_be_made_is_made_by_the_next():
    kept = Kept(100, len)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: str(1 / 0))
    assert kept.get("a", lambda: "made") == "made"
