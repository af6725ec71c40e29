"""Pictures of episodes: MuJoCo's robots off-screen, and a map for worlds on the plane."""

import copy
import ctypes.util
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol
from weakref import finalize

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from metarl import ConfigError, Family, Tasks, generator

Picture = NDArray[np.uint8]  # [height, width, 3]

PLANE_FPS = 10.0  # steps a second on the plane, which has no clock of its own
SIZES = 16, 4096  # the fewest and the most pixels along a side
INK, PALE, BLUE, ORANGE = "#222222", "#dddddd", "#0072b2", "#d55e00"
FINE = 2  # the map is drawn so many times larger, and then averaged: smooth edges


class Painter(Protocol):
    """Draws one family's episodes, each picture [height, width, 3]."""

    def __call__(self, poses: Tensor, params: Tensor | None = None) -> Picture:
        """The last of an episode's poses so far, [T, Q], in the task with these numbers, [P]."""

    def close(self) -> None:
        """Give back what drawing needs."""


def painter(family: Family, width: int, height: int) -> Painter:
    """Who draws a family at so many pixels; ConfigError where none can, or where OpenGL is missing."""
    check_size(width, height)
    if _kind(family) is None:
        raise ConfigError(
            f"family is {family.name!r}, which has no picture; "
            "allowed: one with `model` and `qpos`, or with `goals` on a plane"
        )
    return (
        RobotPainter(family, width, height) if _kind(family) == "robot" else MapPainter(family, width, height)
    )


def poses(family: Family, obs: Tensor) -> Tensor:
    """What a picture needs to know of each episode now, [N, E, Q]: qpos or, on the plane, the position."""
    pose: Tensor = getattr(family, "qpos", obs[..., :2])
    return pose.detach().cpu()


def steps_per_second(family: Family) -> float:
    """How many steps of the family are one second."""
    return 1 / getattr(family, "dt", 1 / PLANE_FPS)


def render_metadata(family: Family) -> dict[str, Any]:
    """What Gymnasium wants to know about a family's pictures."""
    if _kind(family) is None:
        return {"render_modes": []}
    return {"render_modes": ["rgb_array"], "render_fps": steps_per_second(family)}


def check_size(width: Any, height: Any) -> None:
    """Refuse, with a ConfigError, a picture of so many pixels."""
    for name, pixels in ("width", width), ("height", height):
        if not (isinstance(pixels, int | np.integer) and SIZES[0] <= pixels <= SIZES[1]):
            raise ConfigError(
                f"{name} is {pixels!r}; allowed: {SIZES[0]} to {SIZES[1]} pixels, a whole number"
            )


def check_render_mode(family: Family, render_mode: str | None, width: int, height: int) -> None:
    """Refuse, with a ConfigError, what the family cannot be rendered in; without a mode any size will do."""
    modes = render_metadata(family)["render_modes"]
    if render_mode is not None and render_mode not in modes:
        allowed = ", ".join([*modes, "None"])
        raise ConfigError(f"render_mode is {render_mode!r}; allowed for {family.name}: {allowed}")
    if render_mode is not None:
        check_size(width, height)


def _kind(family: Family) -> str | None:
    if hasattr(family, "model") and hasattr(family, "qpos"):
        return "robot"
    return "map" if getattr(family, "view", "") == "plane" else None


class Drawn:
    """What has a family and draws it, from the first picture that is asked for."""

    family: Any
    _size: tuple[int, int]  # width and height, in pixels

    @cached_property
    def _painter(self) -> Painter:
        return painter(self.family, *self._size)

    def _stop_drawing(self) -> None:
        """Give back what drawing needed."""
        if "_painter" in vars(self):
            self._painter.close()
            del self._painter


# --- robots


class RobotPainter:
    """MuJoCo's picture of a pose, from a camera that follows the robot; 2 ms for 320 x 240 on a core.

    Without shadows, reflections and multisampling, which take twenty times as long without a GPU.
    """

    def __init__(self, family: Any, width: int, height: int) -> None:
        self._model = model = copy.copy(family.model)  # whose own stays as it is
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
        self._data, self._option = mujoco.MjData(model), mujoco.MjvOption()
        self._camera, self._view = following(model), mujoco.MjrRect(0, 0, width, height)
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._gl, self._context = opengl(model)
        self._free = finalize(self, release, self._gl, self._context)

    def __call__(self, poses: Tensor, params: Tensor | None = None) -> Picture:
        """The robot as it is; the task does not show."""
        self._data.qpos[:] = poses[-1].numpy()
        mujoco.mj_fwdPosition(self._model, self._data)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, self._camera, everything, self._scene
        )
        self._gl.make_current()
        mujoco.mjr_render(self._view, self._scene, self._context)
        picture = np.empty((self._view.height, self._view.width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, self._view, self._context)
        return picture[::-1].copy()  # OpenGL counts rows from below

    def close(self) -> None:
        """Free the OpenGL context, as happens anyway with the painter's end."""
        self._free()


def release(gl: Any, context: mujoco.MjrContext) -> None:
    """Free what MuJoCo holds, which needs its OpenGL to be current, then that."""
    with suppress(Exception):  # at the interpreter's end OpenGL may be gone before
        gl.make_current()
        context.free()
        gl.free()


def following(model: mujoco.MjModel) -> mujoco.MjvCamera:
    """The model's own camera "track", or else one beside its first body that moves along with it."""
    camera = mujoco.MjvCamera()
    track = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    if track >= 0:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, track
    else:
        camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, min(1, model.nbody - 1)
        camera.distance, camera.azimuth, camera.elevation = 1.5 * model.stat.extent, 90, -20
    return camera


def opengl(model: mujoco.MjModel) -> tuple[Any, mujoco.MjrContext]:
    """OpenGL off-screen, current, and what MuJoCo holds in it; ConfigError where this machine has none."""
    name, size = backend(), model.vis.global_
    try:
        gl = _contexts(name)(size.offwidth, size.offheight)
        gl.make_current()
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    except Exception as error:  # each library has its own way to fail
        reason = " ".join(str(error).split())[:80]
        raise ConfigError(
            f"no OpenGL for pictures (MUJOCO_GL={name}: {type(error).__name__}: {reason}); "
            "allowed: MUJOCO_GL=egl (Debian: libegl1), osmesa (Debian: libosmesa6) or glfw (with a display)"
        ) from None
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    return gl, context


def backend() -> str:
    """What MUJOCO_GL says or, on Linux, what needs no display: EGL or OSMesa, whichever is installed.

    MuJoCo itself reads MUJOCO_GL when it is imported, takes a window system where it is unset, and keeps
    it; metarl looks when a picture is drawn, so that it does not matter who imported what first.
    """
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    if asked or not sys.platform.startswith("linux"):
        return asked or "default"
    libraries = {"egl": "EGL", "osmesa": "OSMesa"}
    return next((name for name in libraries if ctypes.util.find_library(libraries[name])), "glfw")


def _contexts(name: str) -> Callable[[int, int], Any]:
    """The class of OpenGL contexts of a backend; MuJoCo's own choice where it is none of ours."""
    where = import_module(f"mujoco.{name}") if name in ("egl", "osmesa", "glfw") else mujoco
    contexts: Callable[[int, int], Any] = where.GLContext
    return contexts


# --- the plane


class MapPainter:
    """The plane from above: the way so far, from a dot to the point, and the goal."""

    def __init__(self, family: Any, width: int, height: int) -> None:
        self._goals, self._size = family.goals, (FINE * width, FINE * height)
        pools = [family.sample_tasks(None, split, generator(0, family.device)) for split in ("test", "ood")]
        reach = max(float(family.goals(tasks).abs().max()) for tasks in pools)
        self._pixels = min(self._size) / (2.4 * reach)  # a unit, with a margin around all goals

    def __call__(self, poses: Tensor, params: Tensor | None = None) -> Picture:
        """The last position, and all before it as a line."""
        image = Image.new("RGB", self._size, "white")
        draw = ImageDraw.Draw(image)
        (x, y), (right, bottom) = self._place(torch.zeros(1, 2))[0], self._size
        draw.line([(0, y), (right, y)], PALE, FINE)
        draw.line([(x, 0), (x, bottom)], PALE, FINE)
        way, radius = self._place(poses[:, :2]), min(self._size) / 40
        if params is not None:
            tasks = Tasks(params[None], torch.full((1,), -1, device=params.device))
            draw.circle(self._place(self._goals(tasks).cpu())[0], 1.5 * radius, ORANGE)
        draw.line(way, BLUE, 2 * FINE, "curve")
        draw.circle(way[0], radius / 2, INK)
        draw.circle(way[-1], radius, BLUE)
        return np.array(image.reduce(FINE))

    def _place(self, points: Tensor) -> list[tuple[float, float]]:
        """Points [T, 2] in pixels, the origin in the middle, y upwards."""
        pixels = points.double().nan_to_num() * self._pixels * torch.tensor([1.0, -1.0])
        return [(x, y) for x, y in (pixels + torch.tensor(self._size) / 2).tolist()]

    def close(self) -> None:
        """Nothing is held."""
