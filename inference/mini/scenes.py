"""Scenes: small drawn pictures whose content is known exactly.

A scene holds one to four objects, each with a shape, a colour, a texture, a size and a place, on a plain or
cluttered background. Because the generator knows the truth of every statement about a scene, the demo model can be
trained on many true and false captions per picture, and searches over scenes can be graded without labelling.

    rng = np.random.default_rng(0)
    scene = sample_scene(rng)
    image = render(scene, 192)                          # a PIL image, 192 x 192
    Ask((Part("red", "circle"),)).matches(scene)        # True or False

numpy and Pillow only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 35, 40),
    "orange": (245, 130, 25),
    "yellow": (245, 215, 40),
    "green": (40, 150, 60),
    "cyan": (50, 205, 220),
    "blue": (40, 75, 200),
    "purple": (125, 50, 165),
    "pink": (245, 130, 185),
    "brown": (125, 75, 35),
    "black": (25, 25, 28),
    "white": (245, 245, 245),
    "gray": (135, 135, 138),
}
TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES: dict[str, tuple[float, float]] = {"small": (0.20, 0.25), "medium": (0.28, 0.34), "large": (0.40, 0.48)}
BACKGROUNDS = ("plain", "gradient", "clouds", "lines", "speckles", "tiles", "smears")

_Point = tuple[float, float]


def _regular(corners: int, turn: float = -90.0) -> list[_Point]:
    return [
        (math.cos(math.radians(turn + 360 * i / corners)), math.sin(math.radians(turn + 360 * i / corners)))
        for i in range(corners)
    ]


def _star() -> list[_Point]:
    return [
        ((1.0 if i % 2 == 0 else 0.42) * x, (1.0 if i % 2 == 0 else 0.42) * y) for i, (x, y) in enumerate(_regular(10))
    ]


def _heart() -> list[_Point]:
    ts = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    return [
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
        for t in ts
    ]


def _flower() -> list[_Point]:
    ts = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    return [((0.66 + 0.34 * math.cos(5 * t)) * math.cos(t), (0.66 + 0.34 * math.cos(5 * t)) * math.sin(t)) for t in ts]


_POLYGONS: dict[str, list[_Point]] = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -0.95), (0.98, 0.8), (-0.98, 0.8)],
    "star": _star(),
    "heart": _heart(),
    "diamond": [(0, -1), (0.72, 0), (0, 1), (-0.72, 0)],
    "cross": [
        *[(-0.32, -0.95), (0.32, -0.95), (0.32, -0.32), (0.95, -0.32), (0.95, 0.32), (0.32, 0.32)],
        *[(0.32, 0.95), (-0.32, 0.95), (-0.32, 0.32), (-0.95, 0.32), (-0.95, -0.32), (-0.32, -0.32)],
    ],
    "arrow": [(0, -1), (0.85, -0.1), (0.34, -0.1), (0.34, 0.95), (-0.34, 0.95), (-0.34, -0.1), (-0.85, -0.1)],
    "flower": _flower(),
    "bolt": [(0.25, -1), (-0.7, 0.15), (-0.1, 0.15), (-0.3, 1), (0.7, -0.25), (0.1, -0.25), (0.6, -1)],
}
SHAPES = ("circle", "ring", "crescent", *_POLYGONS)


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One drawn object. `x`, `y` (its centre) and `extent` (its width) are fractions of the picture's side."""

    shape: str
    colour: str
    texture: str
    size: str
    x: float
    y: float
    extent: float
    turn: float = 0.0
    """Rotation in degrees."""
    rgb: tuple[int, int, int] = (0, 0, 0)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in 0..1 of the picture."""
        half = self.extent / 2
        return self.x - half, self.y - half, self.x + half, self.y + half

    @property
    def place(self) -> tuple[str, str]:
        """(row, column) of the picture's thirds: top, middle or bottom; left, center or right."""
        row = ("top", "middle", "bottom")[min(int(self.y * 3), 2)]
        column = ("left", "center", "right")[min(int(self.x * 3), 2)]
        return row, column


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows: its objects, its background, and the seed of the background's random marks."""

    objects: tuple[SceneObject, ...]
    background: str
    background_rgb: tuple[int, int, int]
    seed: int


@dataclass(frozen=True, slots=True)
class Part:
    """A description that an object may fit; None leaves an attribute open. `count`: exactly so many objects fit."""

    colour: str | None = None
    shape: str | None = None
    texture: str | None = None
    size: str | None = None
    row: str | None = None
    column: str | None = None
    count: int | None = None

    def fits(self, thing: SceneObject) -> bool:
        row, column = thing.place
        return (
            self.colour in (None, thing.colour)
            and self.shape in (None, thing.shape)
            and self.texture in (None, thing.texture)
            and self.size in (None, thing.size)
            and self.row in (None, row)
            and self.column in (None, column)
        )


@dataclass(frozen=True, slots=True)
class Ask:
    """A statement about a scene: one part, or two parts that two different objects must fit."""

    parts: tuple[Part, ...]

    def matches(self, scene: Scene) -> bool:
        fitting = [[i for i, thing in enumerate(scene.objects) if part.fits(thing)] for part in self.parts]
        counts = zip(self.parts, fitting, strict=True)
        if any(not found or part.count not in (None, len(found)) for part, found in counts):
            return False
        if len(self.parts) == 1:
            return True
        return any(i != j for i in fitting[0] for j in fitting[1])


def _distance(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    """Distance of two RGB colours, weighted roughly as the eye does ("redmean")."""
    mean = (a[0] + b[0]) / 2
    dr, dg, db = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return math.sqrt((2 + mean / 256) * dr * dr + 4 * dg * dg + (2 + (255 - mean) / 256) * db * db)


def _jitter(rng: np.random.Generator, rgb: tuple[int, int, int], by: int) -> tuple[int, int, int]:
    r, g, b = (int(np.clip(c + rng.integers(-by, by + 1), 0, 255)) for c in rgb)
    return r, g, b


def sample_scene(
    rng: np.random.Generator,
    *,
    include: tuple[tuple[str, str], ...] = (),
    exclude: tuple[tuple[str, str], ...] = (),
    count: int | None = None,
) -> Scene:
    """Draw a random scene.

    `include`: (colour, shape) pairs that appear, each at least once. `exclude`: pairs that do not. `count`: the number
    of objects, 1 to 4 at random without it. Objects do not overlap; one that finds no room is drawn smaller.
    """
    total = max(count or int(rng.integers(1, 5)), len(include))
    wanted = list(include)
    while len(wanted) < total:
        if wanted and rng.random() < 0.12:
            pair = wanted[int(rng.integers(len(wanted)))]  # repeats, so that counts have something to count
        else:
            pair = (str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES)))
        if pair not in exclude:
            wanted.append(pair)
    placed: list[SceneObject] = []
    for colour, shape in wanted:
        size = str(rng.choice(list(SIZES))) if total < 4 else str(rng.choice(["small", "medium"]))
        for attempt in range(60):
            if attempt == 30:
                size = "small"
            extent = float(rng.uniform(*SIZES[size]))
            x, y = (float(v) for v in rng.uniform(extent / 2 + 0.02, 0.98 - extent / 2, size=2))
            if all(max(abs(x - o.x), abs(y - o.y)) > 0.46 * (extent + o.extent) for o in placed):
                break
        texture = str(rng.choice(TEXTURES, p=(0.46, 0.18, 0.18, 0.18)))
        turn = float(rng.uniform(-14, 14))
        placed.append(SceneObject(shape, colour, texture, size, x, y, extent, turn, _jitter(rng, COLOURS[colour], 10)))
    for _ in range(200):
        hue = rng.integers(20, 236, size=3)
        towards_grey = rng.uniform(0.2, 0.9)
        r, g, b = (int(c) for c in hue + (hue.mean() - hue) * towards_grey)
        if all(_distance((r, g, b), o.rgb) > 150 for o in placed):
            break
    return Scene(tuple(placed), str(rng.choice(BACKGROUNDS)), (r, g, b), int(rng.integers(2**31)))


def render(scene: Scene, side: int) -> Image.Image:
    """Draw `scene` as an RGB picture of side x side pixels (drawn at twice the size and averaged down)."""
    canvas = _draw_background(scene, 2 * side)
    for thing in scene.objects:
        _draw_object(canvas, thing)
    return canvas.reduce(2)


def tight_boxes(scene: Scene, side: int) -> list[tuple[float, float, float, float]]:
    """(left, top, right, bottom) of each object's own pixels in `render(scene, side)`, in 0..1 of the picture.

    `SceneObject.box` is the square an object is drawn in; a diamond or a turned bolt does not fill it. What another
    object hides is counted.
    """
    boxes = []
    for thing in scene.objects:
        across, x, y = _drawn_at(thing, 2 * side)
        drawn = _shape_mask(thing.shape, across, thing.turn).getbbox()
        assert drawn is not None
        left, top, right, bottom = drawn
        boxes.append(((x + left) / 2 / side, (y + top) / 2 / side, (x + right) / 2 / side, (y + bottom) / 2 / side))
    return boxes


def _shade(rgb: tuple[int, int, int], by: float) -> tuple[int, int, int]:
    """`rgb` moved towards black (by < 0) or white (by > 0)."""
    goal = 255 if by > 0 else 0
    r, g, b = (int(c + (goal - c) * abs(by)) for c in rgb)
    return r, g, b


def _draw_background(scene: Scene, side: int) -> Image.Image:
    rng = np.random.default_rng(scene.seed)
    base = scene.background_rgb
    dark, light = _shade(base, -0.16), _shade(base, 0.16)
    canvas = Image.new("RGB", (side, side), base)
    draw = ImageDraw.Draw(canvas)
    match scene.background:
        case "gradient":
            ramp = Image.linear_gradient("L").rotate(90 * int(rng.integers(4))).resize((side, side))
            canvas = Image.composite(Image.new("RGB", ramp.size, dark), Image.new("RGB", ramp.size, light), ramp)
        case "clouds":
            cells = int(rng.integers(3, 9))
            field = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8)).resize(
                (side, side), Image.Resampling.BICUBIC
            )
            canvas = Image.composite(Image.new("RGB", field.size, dark), Image.new("RGB", field.size, light), field)
        case "lines":
            for _ in range(int(rng.integers(4, 16))):
                ends = [float(v) for v in rng.uniform(0, side, 4)]
                draw.line(ends, fill=_shade(base, float(rng.uniform(-0.3, 0.3))), width=max(1, side // 90))
        case "speckles":
            for x, y in rng.uniform(0, side, (int(rng.integers(40, 160)), 2)):
                r = side / 110
                draw.ellipse((x - r, y - r, x + r, y + r), fill=_shade(base, float(rng.uniform(-0.3, 0.3))))
        case "tiles":
            step = side // int(rng.integers(4, 10))
            for i in range(0, side, step):
                for j in range((i // step) % 2 * step, side, 2 * step):
                    draw.rectangle((j, i, j + step - 1, i + step - 1), fill=_shade(base, -0.09))
        case "smears":
            for _ in range(int(rng.integers(5, 14))):
                x, y = rng.uniform(0, side, 2)
                w, h = rng.uniform(side * 0.1, side * 0.5, 2)
                draw.ellipse((x - w, y - h, x + w, y + h), fill=_shade(base, float(rng.uniform(-0.18, 0.18))))
            canvas = canvas.filter(ImageFilter.BoxBlur(side / 40))
    return canvas


def _drawn_at(thing: SceneObject, side: int) -> tuple[int, int, int]:
    """(width, left, top) in pixels of the square that `thing` is drawn in, on a canvas of `side`."""
    across = max(4, round(thing.extent * side))
    return across, round(thing.x * side - across / 2), round(thing.y * side - across / 2)


def _draw_object(canvas: Image.Image, thing: SceneObject) -> None:
    across, x, y = _drawn_at(thing, canvas.width)
    mask = _shape_mask(thing.shape, across, thing.turn)
    fill = Image.new("RGB", mask.size, thing.rgb)
    if thing.texture != "plain":
        by = 0.38 if sum(thing.rgb) < 120 else -0.34
        pattern = _PATTERNS[thing.texture](across)
        fill.paste(_shade(thing.rgb, by), mask=pattern)
    canvas.paste(fill, (x, y), mask)


def _shape_mask(shape: str, across: int, turn: float) -> Image.Image:
    mask = Image.new("L", (across, across))
    draw = ImageDraw.Draw(mask)
    half = across / 2
    if shape in _POLYGONS:
        cos, sin = math.cos(math.radians(turn)) * half * 0.97, math.sin(math.radians(turn)) * half * 0.97
        draw.polygon([(half + x * cos - y * sin, half + x * sin + y * cos) for x, y in _POLYGONS[shape]], fill=255)
        return mask
    draw.ellipse((0, 0, across - 1, across - 1), fill=255)
    if shape == "ring":
        draw.ellipse((across * 0.27, across * 0.27, across * 0.73, across * 0.73), fill=0)
    if shape == "crescent":
        bite = Image.new("L", mask.size)
        lean = math.radians(turn - 20)
        x, y = half + 0.5 * half * math.cos(lean), half + 0.5 * half * math.sin(lean)
        r = 0.82 * half
        ImageDraw.Draw(bite).ellipse((x - r, y - r, x + r, y + r), fill=255)
        mask = ImageChops.subtract(mask, bite)
    return mask


def _stripes(across: int) -> Image.Image:
    pattern = Image.new("L", (across, across))
    draw = ImageDraw.Draw(pattern)
    step = max(2.0, across / 5)
    for i in range(-6, 12):
        draw.line((i * step, -2, i * step - across * 0.6, across + 2), fill=255, width=max(1, round(step * 0.45)))
    return pattern


def _dots(across: int) -> Image.Image:
    pattern = Image.new("L", (across, across))
    draw = ImageDraw.Draw(pattern)
    step = across / 4
    r = step * 0.27
    for i in range(5):
        for j in range(5):
            x, y = (i + 0.5 * (j % 2)) * step, (j + 0.5) * step
            draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    return pattern


def _checks(across: int) -> Image.Image:
    board = np.indices((4, 4)).sum(axis=0) % 2 * 255
    return Image.fromarray(board.astype(np.uint8)).resize((across, across), Image.Resampling.NEAREST)


_PATTERNS: dict[str, Callable[[int], Image.Image]] = {"striped": _stripes, "dotted": _dots, "checkered": _checks}
