"""One adaptation as a film: an episode before it and one after it, side by side, in real time."""

import copy
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Generator, Tensor

from metarl import ConfigError, Family, Outcome, Tasks
from metarl.checkpoint import write_atomically
from metarl.envs import Picture, named_tasks, painter, poses, steps_per_second
from metarl.evaluation import unit

from .figures import INK, legend, number
from .session import Session, judge

FORMATS = (".mp4", ".gif")
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


class Recorder:
    """A family that plays as ever, and keeps of each moment what `look(family, obs)` sees, [N, E, ...]."""

    def __init__(self, family: Family, look: Callable[[Any, Tensor], Tensor] = poses) -> None:
        self._family, self._look = family, look
        self._moments: list[list[Tensor]] = []  # a list a round
        self._ended: list[list[Tensor]] = []  # a list a round, [N, E] a step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        """The family's; a round begins."""
        obs = self._family.reset(tasks, episodes, rng)
        self._moments.append([self._look(self._family, obs)])
        self._ended.append([])
        return obs

    def step(self, action: Tensor) -> Outcome:
        """The family's."""
        outcome = self._family.step(action)
        self._moments[-1].append(self._look(self._family, outcome.obs))
        self._ended[-1].append(outcome.terminated.cpu())
        return outcome

    def episode(self, k: int, e: int, task: int = 0) -> Tensor:
        """Round k's episode e in a task, up to and with its end, [T + 1, ...]."""
        ended = torch.stack(self._ended[k])[:, task, e]
        steps = int(ended.long().argmax()) + 1 if ended.any() else len(ended)
        return torch.stack([moment[task, e] for moment in self._moments[k][: steps + 1]])


class Episode(NamedTuple):
    """What is shown of a round: one episode, with what it earned."""

    label: str
    poses: Tensor  # [T + 1, Q]


def before_and_after(session: Session, tasks: Tasks) -> list[Episode]:
    """The trial of evaluation in one task: of its first and of its last round the median episode."""
    recorder: Any = Recorder(session.family)  # a family, by delegation
    watched = copy.copy(session)
    watched.family = recorder
    returns = [x[0].cpu() for x in judge(watched, tasks=tasks, controls=False).returns]
    counted, shown = unit(session.agent, session.experiment.evaluation.rounds), list[Episode]()
    for k in dict.fromkeys((0, len(returns) - 1)):
        e = int(returns[k].argsort()[len(returns[k]) // 2])
        label = f"{legend(k, counted)}, return {number(returns[k][e].item(), 1)}"
        shown.append(Episode(label, recorder.episode(k, e)))
    return shown


def filmstrip(
    family: Family,
    poses: Tensor,
    frames: int = 8,
    params: Tensor | None = None,
    width: int = 160,
    height: int = 120,
) -> Picture:
    """An episode in evenly spaced moments from its first pose to its last, [height, frames * width, 3].

    `poses` is [T, Q], `params` the task [P], which a map shows. Raises ConfigError where the family has
    no picture, or this machine no OpenGL.
    """
    paint = painter(family, width, height)
    moments = np.linspace(0, len(poses) - 1, frames).round().astype(int)
    strip = np.concatenate([paint(poses[: t + 1], params) for t in moments], axis=1)
    paint.close()
    return strip


# --- films


def film(
    session: Session,
    task: Mapping[str, float],
    out: Path,
    width: int = 480,
    height: int = 360,
    fps: float = 50.0,
) -> None:
    """Adapt to a task, and write the film of it: each picture width x height pixels, time as it was.

    `fps` is the most pictures a second; of a faster world every second, third, ... step is shown.
    """
    if not 1 <= fps <= 100:
        raise ConfigError(f"fps is {fps:g}; allowed: 1 to 100")
    check_out(out)
    paint = painter(session.family, width, height)
    tasks = named_tasks(session.family, [task])
    episodes = before_and_after(session, tasks)
    rate = steps_per_second(session.family)
    stride = max(1, -int(-rate // fps))
    texts = [x.label for x in episodes]
    head = heading(described(session.family, task), texts, width)
    last = max(len(x.poses) for x in episodes) - 1
    steps = [*range(0, last, stride), last]
    pictures = (framed(head, [paint(x.poses[: t + 1], tasks.params[0]) for x in episodes]) for t in steps)
    if out.suffix == ".mp4":
        content = mp4(pictures, rate / stride)
    else:
        content = gif(pictures, [t / rate for t in (*steps, last + 1)])
    write_atomically(out, content)
    paint.close()


def check_out(out: Path) -> None:
    """Refuse, with a ConfigError, a file that cannot be written; to be asked before the work is done."""
    if out.suffix not in FORMATS:
        raise ConfigError(f"out is {str(out)!r}; allowed: a name that ends in {' or '.join(FORMATS)}")
    if out.is_dir():
        raise ConfigError(f"out is {str(out)!r}, a folder; allowed: a file's name")
    if not out.parent.is_dir():
        raise ConfigError(f"out is {str(out)!r}; allowed: a name in a folder that exists")
    if out.suffix == ".mp4":
        _ffmpeg()


def described(family: Family, task: Mapping[str, float]) -> str:
    """The family and the task's numbers, as a title."""
    numbers = (f"{p.name} = {task[p.name]:g} {p.unit}".rstrip() for p in family.task_space if p.name in task)
    return f"{family.name}: {', '.join(numbers)}"


def heading(title: str, labels: Sequence[str], width: int) -> Picture:
    """The title across, and under it a label over each picture, in the largest letters that fit."""
    total = width * len(labels)
    rooms = [(title, total), *((label, width) for label in labels)]
    length = max(_font(100).getlength(text) / room for text, room in rooms)  # of 100 pixels' letters
    size = int(min(width / 24, 95 / length))
    image = Image.new("RGB", (total, 4 * max(size, 4)), "white")
    draw = ImageDraw.Draw(image)
    draw.text((total / 2, image.height * 0.28), title, INK, _font(size), "mm")
    for i, label in enumerate(labels):
        draw.text((width * (i + 0.5), image.height * 0.72), label, INK, _font(size), "mm")
    return np.array(image)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT), max(size, 4))


def framed(head: Picture, pictures: Sequence[Picture]) -> Picture:
    """Pictures side by side under their heading; even sides, as video wants them."""
    whole = np.concatenate([head, np.concatenate(pictures, axis=1)])
    return np.pad(whole, ((0, whole.shape[0] % 2), (0, whole.shape[1] % 2), (0, 0)), "edge")


# --- files


def mp4(pictures: Iterator[Picture], fps: float) -> bytes:
    """H.264, by the ffmpeg that imageio-ffmpeg brings along."""
    first = next(pictures)
    with TemporaryDirectory() as folder:
        path = Path(folder, "film.mp4")
        size = first.shape[1], first.shape[0]
        writer = _ffmpeg().write_frames(str(path), size, fps=fps, quality=7, macro_block_size=2)
        with closing(writer):
            writer.send(None)
            for picture in chain([first], pictures):
                writer.send(picture.tobytes())
        return path.read_bytes()


def gif(pictures: Iterator[Picture], times: Sequence[float]) -> bytes:
    """An endless GIF; `times` says in s when each picture begins and, one more, when the last one ends.

    Pictures last for whole hundredths of a second; the times are what is rounded: no error adds up.
    """
    first, *rest = map(Image.fromarray, pictures)
    hundredths = np.diff(np.round(100 * np.asarray(times)).astype(int)).clip(1)  # 0 would be "any time"
    content, milliseconds = io.BytesIO(), (10 * hundredths).tolist()
    first.save(content, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    return content.getvalue()


def _ffmpeg() -> Any:
    try:
        import imageio_ffmpeg  # an extra

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise ConfigError(
            "an .mp4 needs the extra `video`: pip install imageio-ffmpeg; allowed without it: a .gif"
        ) from None
    return imageio_ffmpeg
