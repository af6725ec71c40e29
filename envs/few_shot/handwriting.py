"""Letters written by hand: the strokes of a printed letter, drawn anew by simulated writers.

A stroke is a line through the middle of the ink, [P, 2] rows and columns, around the letter's centre and in
units of its longest side. Drawing bends the whole letter, lets each stroke slip a little, gives it the
writer's size, slant and tilt, and goes over it with the writer's pen.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Pixel = tuple[int, int]
Stroke = NDArray[np.float64]

PIXELS = 28  # side of a picture
FINE = 6  # pictures are drawn this many times as large and then made small, for grey edges
SIDE = 96  # longest side of the ink that strokes are found in
ROUND = np.exp(-0.5 * (np.arange(-6, 7) / 2) ** 2)  # weights that round off a path's steps
ROUND /= ROUND.sum()
SPUR = 7  # thinning grows branches shorter than this at corners
BENDS = 4  # points along each side of a letter that are moved to bend it
LARGEST = 0.84  # of the picture's side


@dataclass(frozen=True)
class Writer:
    """A hand. Lengths are in sides of the letter, but `size`, `pen` and `drift` in sides of the picture."""

    size: float
    pen: float
    aspect: float = 0.0  # logarithm of height over width
    slant: float = 0.0
    tilt: float = 0.0  # radians
    bend: float = 0.0
    slip: float = 0.0  # how far a stroke is off its place
    drift: float = 0.0  # how far a letter is off the middle
    unsteady: float = 0.0  # how much one drawing differs from the next


PLAIN = Writer(size=0.84, pen=0.02)


def writer(rng: Generator, strength: float) -> Writer:
    """Draw a hand, which departs from print in proportion to `strength`."""
    return Writer(
        size=rng.uniform(0.5, 0.87),
        pen=rng.uniform(0.023, 0.036),
        aspect=rng.normal(0, 0.1 * strength),
        slant=rng.normal(0, 0.16 * strength),
        tilt=rng.normal(0, 0.07 * strength),
        bend=rng.uniform(0.03, 0.075) * strength,
        slip=rng.uniform(0.005, 0.023) * strength,
        drift=0.03,
        unsteady=strength,
    )


def strokes(printed: Image.Image) -> list[Stroke]:
    """The lines along the middle of a printed letter's ink, of any size; none where there is hardly any."""
    from skimage.morphology import skeletonize

    scale = SIDE / max(printed.size)
    width, height = (max(3, round(scale * side)) for side in printed.size)
    sheet = Image.new("L", (width + 16, height + 16))
    sheet.paste(printed.resize((width, height), Image.Resampling.LANCZOS), (8, 8))
    graph = _neighbours(skeletonize(np.asarray(sheet.filter(ImageFilter.GaussianBlur(1))) > 127))
    if len(graph) < 12:
        return []
    centre = (np.array([sheet.height, sheet.width]) - 1) / 2
    return [(_smooth(path) - centre) / SIDE for path in _paths(graph) if not _is_spur(path, graph)]


def _neighbours(skeleton: NDArray[np.bool_]) -> dict[Pixel, list[Pixel]]:
    """The pixels next to each pixel; across a corner only where the way around it is free."""
    pixels = {(int(row), int(column)) for row, column in np.argwhere(skeleton)}
    graph: dict[Pixel, list[Pixel]] = {}
    for row, column in sorted(pixels):
        straight = [(row + d, column) for d in (-1, 1)] + [(row, column + d) for d in (-1, 1)]
        corners = [(row + d, column + e) for d in (-1, 1) for e in (-1, 1)]
        free = [(r, c) for r, c in corners if not {(r, column), (row, c)} & pixels]
        graph[row, column] = [p for p in straight + free if p in pixels]
    return graph


def _paths(graph: dict[Pixel, list[Pixel]]) -> list[list[Pixel]]:
    """Walk each link once, from an end or a crossing to the next; then the loops, which have neither."""
    left = {pixel: list(near) for pixel, near in graph.items()}
    paths = [[pixel] for pixel, near in graph.items() if not near]  # dots
    for start in sorted(graph, key=lambda pixel: len(graph[pixel]) == 2):
        while left[start]:
            path = [start]
            while left[path[-1]]:
                here, there = path[-1], left[path[-1]].pop()
                left[there].remove(here)
                path.append(there)
                if len(graph[there]) != 2:
                    break
            paths.append(path)
    return paths


def _is_spur(path: list[Pixel], graph: dict[Pixel, list[Pixel]]) -> bool:
    """Whether it is a short branch with one end free; with both free it is a dot or a dash."""
    ends = sorted(len(graph[pixel]) for pixel in (path[0], path[-1]))
    return len(path) < SPUR and ends[0] == 1 and ends[1] > 1


def _smooth(path: list[Pixel]) -> Stroke:
    """Every third point of a path whose steps are rounded off; its ends stay."""
    points = np.array(path, dtype=np.float64)
    if len(points) < 6:
        return points
    padded = np.pad(points, ((len(ROUND) // 2,) * 2, (0, 0)), mode="edge")
    rounded = np.stack([np.convolve(axis, ROUND, "valid") for axis in padded.T], -1)
    return np.concatenate([points[:1], rounded[3:-1:3], points[-1:]])


def draw(letter: list[Stroke], hand: Writer, rng: Generator) -> NDArray[np.uint8]:
    """One picture of a letter by a writer, [28, 28], ink 255."""
    cuts = np.cumsum([len(stroke) for stroke in letter])[:-1]
    bent = _bent(np.concatenate(letter), hand.bend, rng)
    slipped = [_slipped(stroke, hand, rng) for stroke in np.split(bent, cuts)]
    points = np.concatenate(slipped) @ _shape(hand, rng).T
    return _inked(np.split(_placed(points, hand.drift, rng), cuts), hand.pen)


def _bent(points: Stroke, bend: float, rng: Generator) -> Stroke:
    """Move a grid of points over the letter at random, and what lies between them in proportion."""
    moves = rng.normal(0, bend, (BENDS, BENDS, 2))
    places = (np.clip(points, -0.5, 0.5) + 0.5) * (BENDS - 1)
    rows, columns = np.maximum(0, 1 - np.abs(places.T[:, :, None] - np.arange(BENDS)))  # [P, BENDS] each
    return points + np.einsum("pr,pc,rcd->pd", rows, columns, moves)


def _slipped(stroke: Stroke, hand: Writer, rng: Generator) -> Stroke:
    """Turn, scale and shift a stroke a little around its middle."""
    middle = stroke.mean(0)
    turn = _rotation(rng.normal(0, 0.06 * hand.unsteady)) * math.exp(rng.normal(0, 0.05 * hand.unsteady))
    return (stroke - middle) @ turn.T + middle + rng.normal(0, hand.slip, 2)


def _shape(hand: Writer, rng: Generator) -> NDArray[np.float64]:
    """The writer's size, proportions, slant and tilt in this drawing, as a matrix [2, 2]."""
    tilt, slant, aspect, size = rng.normal(0, (0.05, 0.07, 0.07, 0.06)) * hand.unsteady
    stretch = math.exp(hand.aspect + aspect)
    slanted = np.array([[stretch, 0.0], [hand.slant + slant, 1 / stretch]])
    return _rotation(hand.tilt + tilt) @ slanted * hand.size * math.exp(size)


def _rotation(angle: float) -> NDArray[np.float64]:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _placed(points: Stroke, drift: float, rng: Generator) -> Stroke:
    """Put a letter near the picture's middle, within its edges; from 0 to 1."""
    low, high = points.min(0), points.max(0)
    extent = (high - low).max()
    shrink = min(1.0, LARGEST / max(extent, 1e-6))
    most = 0.495 - extent * shrink / 2
    return (points - (low + high) / 2) * shrink + 0.5 + np.clip(rng.normal(0, drift, 2), -most, most)


def _inked(letter: list[Stroke], pen: float) -> NDArray[np.uint8]:
    """Go over strokes in [0, 1] with a round pen."""
    fine = PIXELS * FINE
    picture = Image.new("L", (fine, fine))
    canvas = ImageDraw.Draw(picture)
    width = max(1, round(pen * fine))
    for stroke in letter:
        line = [(float(column), float(row)) for row, column in stroke * fine]
        canvas.line(line, fill=255, width=width, joint="curve")
        radius = width / 2 if len(line) > 1 else width  # a dot alone would be too faint
        for x, y in line:
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(picture.resize((PIXELS, PIXELS), Image.Resampling.LANCZOS))
