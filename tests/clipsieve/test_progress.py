import io

from clipsieve.progress import Progress, duration, line


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def work(stream, steps, seconds_each, **options):
    clock = Clock()
    with Progress("embedding", "images", stream, clock=clock, **options) as progress:
        for step in range(steps + 1):
            progress.update(step * 10, steps * 10, skipped=step)
            clock.now += seconds_each
    return stream.getvalue()


def test_a_line_says_count_skips_rate_and_what_is_left():
    assert line("embedding", "images", 300, 1200, 2, 10.0, 300) == (
        "embedding: 300 of 1,200 images, 2 skipped, 30/s, 30 s left"
    )
    assert line("reading", "files", 7, None, 0, 2.0, 7) == "reading: 7 files, 3.5/s, 2.0 s"
    assert line("reading", "files", 0, None, 0, 0.0, 0) == "reading: 0 files"


def test_a_resumed_run_counts_only_its_own_work_as_speed():
    assert "10/s, 10 s left" in line("embedding", "images", 900, 1000, 0, 10.0, 100)


def test_a_pipe_gets_few_plain_lines():
    text = work(io.StringIO(), steps=1000, seconds_each=0.05)
    assert "\r" not in text
    assert "\x1b" not in text
    assert 4 <= len(text.splitlines()) <= 7  # 50 seconds, one line every ten, and the last
    assert text.splitlines()[-1].startswith("embedding: 10,000 of 10,000 images, 1,000 skipped")


def test_a_terminal_gets_one_line_redrawn():
    text = work(Terminal(), steps=20, seconds_each=1.0)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert text.count("\r") >= 20


def test_what_is_over_at_once_is_not_reported():
    assert work(io.StringIO(), steps=3, seconds_each=0.1) == ""
    assert work(io.StringIO(), steps=3, seconds_each=1.0).startswith("embedding: 30 of 30 images")


def test_quiet_says_nothing_and_neither_does_work_that_never_began():
    assert work(io.StringIO(), 100, 1.0, quiet=True) == ""
    stream = io.StringIO()
    with Progress("embedding", "images", stream):
        pass
    assert stream.getvalue() == ""


def test_durations_are_short():
    assert [duration(s) for s in (0.04, 9.9, 12.4, 59.6, 200, 7500)] == [
        "0.0 s",
        "9.9 s",
        "12 s",
        "1 min 0 s",
        "3 min 20 s",
        "2 h 5 min",
    ]
