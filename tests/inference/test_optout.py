import pytest

from clipsieve.inference.optout import opt_out


@pytest.mark.parametrize("directive", ["noai", "noimageai", "noindex", "noimageindex", "none"])
def test_each_opt_out_counts_for_everybody_and_for_us_by_name(directive):
    assert opt_out([directive]) == directive
    assert opt_out(["nofollow", f"nofollow,  {directive.upper()} "]) == directive
    assert opt_out([f"clipsieve: {directive}"]) == directive
    assert opt_out([f"ClipSieve: nofollow, {directive}"]) == directive
    assert opt_out([f"*: {directive}"]) == directive


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["all"],
        ["nofollow, noarchive"],
        ["otherbot: noai"],
        ["otherbot: noai, noindex"],  # the name holds for all of the header
        ["max-snippet: 50, nosnippet"],
        ["noairline"],
    ],
)
def test_what_is_meant_for_others_or_means_something_else_does_not(values):
    assert opt_out(values) is None


def test_a_directive_with_a_value_is_not_taken_for_a_program():
    assert opt_out(["noai, unavailable_after: 25 Jun 2030 15:00:00 PST"]) == "noai"
    assert opt_out(["unavailable_after: 25 Jun 2030 15:00:00 PST, noindex"]) == "noindex"


def test_several_programs_in_one_header():
    assert opt_out(["otherbot: noindex, clipsieve: noai"]) == "noai"
    assert opt_out(["clipsieve: nofollow, otherbot: noai"]) is None
