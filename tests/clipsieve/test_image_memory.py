"""One total for all images that are decoded at a time."""

import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from clipsieve.errors import InputError, Overloaded, TooLarge
from clipsieve.heif import open_image
from clipsieve.image_costs import decoding_bytes
from clipsieve.image_files import open_raster, upright_size
from clipsieve.image_memory import LEAST_TOTAL, ImageMemory, machine_memory
from tests.inference.pictures import encoded, picture


def test_what_can_never_fit_is_too_large_and_what_does_not_now_is_told_to_come_back():
    memory = ImageMemory(100, wait_s=0.01)
    with (
        pytest.raises(TooLarge, match=r"X takes 1 MB to decode.*--image-memory.*send a smaller one"),
        memory.hold(101, "X"),
    ):
        pass
    with memory.hold(60, "X"):
        with pytest.raises(Overloaded, match="ask again"), memory.hold(41, "Y"):
            pass
        with memory.hold(40, "Y"):
            assert memory.held == 100
    with pytest.raises(ZeroDivisionError), memory.hold(50, "X"):
        raise ZeroDivisionError
    assert memory.held == 0


def test_a_run_waits_and_decodes_what_is_larger_than_the_total_alone():
    memory = ImageMemory(100)
    most, running, lock = 0, [], threading.Lock()

    def decode(size):
        nonlocal most
        with memory.hold(size, "X"):
            with lock:
                running.append(size)
                most = max(most, sum(running))
                assert len(running) == 1 or max(running) <= 100
            with lock:
                running.remove(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [30, 60, 500, 20, 90, 10, 40, 101] * 20))
    assert 0 < most <= 500
    assert memory.held == 0


def test_the_first_to_come_is_the_first_served():
    memory = ImageMemory(100)
    order: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        with memory.hold(60, "X"):
            large = pool.submit(_note, memory, 80, "large", order)
            while not memory._waiting:
                pass
            small = pool.submit(_note, memory, 30, "small", order)
            while len(memory._waiting) < 2:
                pass
        large.result(), small.result()
    assert order == ["large", "small"]


def _note(memory, size, name, order):
    with memory.hold(size, name):
        order.append(name)


def test_images_reserve_what_they_take():
    memory = ImageMemory(200_000, wait_s=0)
    with open_raster(encoded(picture(0)), ImageMemory(2**21, wait_s=0)):
        pass
    with pytest.raises(TooLarge, match=r"64 x 48 pixels \(WEBP\)"), open_raster(encoded(picture(0), "WEBP"), memory):
        pass
    assert not isinstance(TooLarge(""), InputError)  # a damaged image is another matter


def tiled(side, tile):
    """A grey TIFF of one tile, which may be far larger than what is seen of it."""
    data = zlib.compress(bytes(tile * tile), 9)
    short, long = 3, 4
    entries = [(256, long, side), (257, long, side), (258, short, 8), (259, short, 8), (262, short, 1), (277, short, 1)]
    entries += [(322, long, tile), (323, long, tile), (324, long, 8), (325, long, len(data))]
    fields = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(entries)) + fields + bytes(4)


def test_a_tile_is_decoded_whole():
    assert upright_size(tiled(64, 64), ImageMemory(2**21, wait_s=0)) == (64, 64)
    with pytest.raises(TooLarge, match="2000 x 2000"):
        upright_size(tiled(64, 2000), ImageMemory(2**21, wait_s=0))


def test_jpegs_in_several_scans_cost_what_progressive_ones_do():
    whole = encoded(picture(0, (400, 300)), "JPEG")
    at = whole.index(b"\xff\xda") + 4
    apart = whole[:at] + b"\x01" + whole[at + 1 :]  # the scan says that it has one channel
    progressive = encoded(picture(0, (400, 300)), "JPEG", progressive=True)
    cost = [decoding_bytes(open_image(data), 1) for data in (whole, apart, progressive)]
    assert cost[0] < cost[1] == cost[2]


def test_the_default_is_a_part_of_the_machines_memory():
    assert LEAST_TOTAL <= ImageMemory().total <= max(LEAST_TOTAL, machine_memory() // 4)
