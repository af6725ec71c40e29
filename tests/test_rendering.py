"""Pictures and films of episodes: what they show, and what is said where there can be none."""

import copy
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageSequence
from torch import Tensor

from metarl import ConfigError, generator
from metarl.envs import GymnasiumView, VectorView, gymnasium_id, make, named_tasks, painter
from metarl.experiments import Session, config, judge, main
from metarl.runs import Run

rendering: Any = import_module("metarl.envs.rendering")
render: Any = import_module("metarl.experiments.render")

PLANE, ROBOT, SIZE = "navigation/maml2017", "half-cheetah-vel/pearl2019", (96, 64)


def robot(x: float = 0.0) -> tuple[Any, Tensor]:
    """A family, and the pose [1, Q] of its robot at some x."""
    family: Any = make(ROBOT)
    pose = torch.from_numpy(family.model.qpos0)[None].clone()
    pose[0, 0] = x
    return family, pose


def body(picture: np.ndarray) -> np.ndarray:
    """The places (row, column) of what is neither grey nor green: the robot, [P, 2]."""
    red = picture[..., 0].astype(int) > picture[..., 1] + 20
    assert red.sum() > 20, "there is a robot"
    return np.argwhere(red)


# --- robots


@pytest.mark.usefixtures("opengl")
def test_the_camera_follows_the_robot() -> None:
    family, pose = robot()
    paint = painter(family, *SIZE)
    here, there = (paint(robot(x)[1]) for x in (0.0, 7.3))
    assert here.shape == (64, 96, 3)
    assert here.dtype == np.uint8
    assert np.abs(body(here).mean(0) - body(there).mean(0)).max() < 2
    assert (here != there).any(), "the floor is another"
    pose[0, 2] = 1.5  # on its tail
    for picture, upright in (here, False), (paint(pose), True):
        rows, columns = np.ptp(body(picture), 0)
        assert (rows > columns) == upright
    assert (paint(robot()[1]) == here).all(), "a picture depends on its pose alone"


@pytest.mark.usefixtures("opengl")
def test_a_robot_without_a_camera_is_followed_too() -> None:
    family, _ = robot()
    text = """<mujoco><worldbody><light pos="0 0 9"/><geom type="plane" size="9 9 1"/>
      <body pos="0 0 1"><joint type="slide" axis="1 0 0"/><geom size="0.3" rgba="1 0 0 1"/></body>
    </worldbody></mujoco>"""
    family.model = mujoco.MjModel.from_xml_string(text)
    paint = painter(family, *SIZE)
    here, there = (body(paint(torch.full((1, 1), x))).mean(0) for x in (0.0, 7.3))
    assert np.abs(here - there).max() < 2


@pytest.mark.usefixtures("opengl")
def test_painters_do_not_disturb_each_other_nor_the_family() -> None:
    family, pose = robot()
    before = family.model.vis.global_.offwidth
    large, small = painter(family, 700, 20), painter(make("ant-vel/maml2017"), 32, 32)
    first = large(pose)
    ant = torch.from_numpy(make("ant-vel/maml2017").model.qpos0)[None]  # type: ignore[attr-defined]
    small(ant)
    assert (large(pose) == first).all()
    small.close()
    small.close()
    assert (large(pose) == first).all()
    assert family.model.vis.global_.offwidth == before


@pytest.mark.parametrize(
    ("asked", "installed", "wanted"),
    [
        ("", ("EGL", "OSMesa"), "egl"),
        ("", ("OSMesa",), "osmesa"),
        ("", (), "glfw"),
        ("OSMesa ", ("EGL",), "osmesa"),
    ],
)
def test_pictures_need_no_display(
    asked: str, installed: tuple[str, ...], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("MUJOCO_GL", asked)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: name if name in installed else None)
    assert rendering.backend() == wanted


def test_without_opengl_a_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(width: int, height: int) -> None:
        raise ImportError("no such library:\n libEGL")

    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(rendering, "_contexts", lambda name: broken)
    with pytest.raises(ConfigError, match=r"no OpenGL .*MUJOCO_GL=egl: ImportError: no such library: libEGL"):
        painter(robot()[0], *SIZE)


# --- the plane


def test_the_map_shows_way_and_goal() -> None:
    family = make(PLANE)
    way = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.5, -0.5]])
    picture = painter(family, 120, 100)(way, torch.tensor([-0.5, 0.5])).astype(int)
    assert picture.shape == (100, 120, 3)
    rows, columns = np.nonzero(picture[..., 0] > picture[..., 2] + 100)  # orange: the goal, up and left
    unit = (60 - columns.mean()) / 0.5
    assert unit > 10
    assert rows.mean() == pytest.approx(50 - 0.5 * unit, abs=1)
    blue = picture[..., 2] > picture[..., 0] + 100
    for x, y, drawn in (0.5, -0.5, True), (0.5, -0.25, True), (0.25, 0, True), (0.25, -0.25, False):
        assert blue[int(50 - y * unit), int(60 + x * unit)] == drawn


# --- environments


@pytest.mark.parametrize("name", [PLANE, ROBOT])
def test_environments_show_their_episodes(name: str, no_opengl: str) -> None:
    if name == ROBOT and no_opengl:
        pytest.skip(no_opengl)
    sizes: dict[str, Any] = dict(zip(("width", "height"), SIZE, strict=True))
    single: Any = gym.make(gymnasium_id(name), render_mode="rgb_array", **sizes)
    many: Any = gym.make_vec(gymnasium_id(name), num_envs=3, render_mode="rgb_array", **sizes)
    single.reset(seed=0)
    many.reset(seed=0)
    for _ in range(3):
        single.step(single.action_space.sample())
        many.step(many.action_space.sample())
    views: list[Any] = [single.unwrapped, many.unwrapped]
    paint = painter(views[0].family, *SIZE)
    for view, pictures in zip(views, ((single.render(),), many.render()), strict=True):
        poses = view.family.qpos if name == ROBOT else view._seen
        for picture, pose, params in zip(pictures, poses, view._now.params, strict=True):
            assert (picture == paint(pose, params)).all()
    single.close()
    many.close()


def test_without_a_render_mode_there_is_no_picture_but_a_warning() -> None:
    for env in GymnasiumView(PLANE), VectorView(PLANE, 2):
        env.reset(seed=0)
        with pytest.warns(UserWarning, match='render_mode="rgb_array"'):
            assert env.render() is None


def test_a_family_without_a_picture_says_so() -> None:
    family: Any = make(PLANE)
    family.view = "inner"
    assert GymnasiumView(family).metadata["render_modes"] == []
    with pytest.raises(
        ConfigError, match=r"^render_mode is 'rgb_array'; allowed for navigation/maml2017: None"
    ):
        GymnasiumView(family, render_mode="rgb_array")
    with pytest.raises(ConfigError, match=r"^family is 'navigation/maml2017', which has no picture"):
        painter(family, *SIZE)


def test_a_size_that_cannot_be_is_refused() -> None:
    family, views = make(PLANE), (GymnasiumView, VectorView)
    sizes: list[Any] = [(8, 64, "width is 8"), (64, 5000, "height is 5000"), ("a", 64, "width is 'a'")]
    for width, height, text in [*sizes, (64, 64.5, "height is 64.5")]:
        message = f"^{text}; allowed: 16 to 4096 pixels, a whole number$"
        with pytest.raises(ConfigError, match=message):
            painter(family, width, height)
        for kind in views:
            kind(family, width=width, height=height)  # without a mode nothing will be drawn
            with pytest.raises(ConfigError, match=message):
                kind(family, render_mode="rgb_array", width=width, height=height)


# --- films


def session(family: str = PLANE, rounds: str = "[5,3,5]") -> Session:
    settings = {"family": family, "evaluation.rounds": rounds, "agent.hidden": "[4]"}
    return Session(config.build(config.override(config.read("quickstart"), settings)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run that has learned nothing yet."""
    untrained = session(rounds="[2,2]")
    made = Run.create(tmp_path_factory.mktemp("run"), yaml.safe_dump(config.to_tree(untrained.experiment)))
    made.save(0, untrained.state())
    return str(made.folder)


def test_a_film_shows_the_median_episodes_of_the_very_evaluation() -> None:
    judged = session()
    tasks = named_tasks(judged.family, [{"goal_x": 0.1, "goal_y": -0.2}])
    wanted = judge(judged, tasks=tasks).returns
    state = copy.deepcopy(judged.state())
    shown = render.before_and_after(judged, tasks)
    assert torch.equal(judged.state()["rng"], state["rng"]), "nothing is drawn from the training's generator"
    for episode, returns, when in zip(
        shown, (wanted[0], wanted[-1]), ("before adaptation", "after 2 adaptations"), strict=True
    ):
        earned = -(episode.poses[1:] - torch.tensor([0.1, -0.2])).norm(dim=-1).sum()
        assert earned.item() == pytest.approx(returns.median().item(), rel=1e-5)
        assert episode.label == f"{when}, return {earned.item():.1f}".replace("-", "−")


def test_an_episode_that_ends_early_is_shown_to_its_end() -> None:
    judged = session(rounds="[3]")
    tasks = named_tasks(judged.family, [{"goal_x": 0.0, "goal_y": 0.0}])
    family: Any = judged.family
    family.arrival = 0.1
    (episode,) = render.before_and_after(judged, tasks)
    inside = (episode.poses[1:].abs() < 0.1).all(-1)
    assert len(inside) < family.horizon
    assert inside.tolist() == [False] * (len(inside) - 1) + [True]


def test_a_filmstrip_goes_from_the_first_moment_to_the_last() -> None:
    family = make(PLANE)
    way = torch.rand(30, 2, generator=generator(0))
    goal = torch.tensor([0.5, 0.5])
    strip = render.filmstrip(family, way, frames=3, params=goal, width=40, height=30)
    assert strip.shape == (30, 120, 3)
    paint = painter(family, 40, 30)
    for i, t in enumerate((0, 14, 29)):
        assert (strip[:, 40 * i : 40 * (i + 1)] == paint(way[: t + 1], goal)).all()


def test_a_heading_has_room_for_every_letter() -> None:
    for width in 120, 480:
        head = render.heading(
            "a family: a number = 1", ["before", "after 3 adaptations, return −1,234.5"], width
        )
        assert head.shape[1] == 2 * width
        assert (head[:, [0, -1]] == 255).all()
        assert (head[[0, -1]] == 255).all()
        assert (head != 255).any()
    assert render.framed(head, [np.zeros((31, 480, 3), np.uint8)] * 2).shape[0] % 2 == 0


def test_a_title_names_the_task_with_its_units() -> None:
    assert render.described(make(PLANE), {"goal_y": 1, "goal_x": 0.5}) == (
        "navigation/maml2017: goal_x = 0.5 units, goal_y = 1 units"
    )


TASK = ("--task", "goal_x=0.3", "--task", "goal_y=-0.2")
SMALL = ("--width", "40", "--height", "31")


def durations(path: Path) -> tuple[int, int, list[int]]:
    """A GIF's width, height, and its pictures' milliseconds."""
    with Image.open(path) as film:
        pictures = [picture.info["duration"] for picture in ImageSequence.Iterator(film)]
        return *film.size, pictures


def test_render_writes_a_gif_in_real_time(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "film.gif"
    assert main(["render", run, *TASK, "--out", str(out), *SMALL, "--fps", "4"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    width, height, times = durations(out)
    assert (width, height % 2) == (80, 0)
    assert sum(times) == pytest.approx(10_000, rel=0.05), "100 steps, ten a second"
    assert len(times) <= 35, "every third of them"


def test_render_writes_an_mp4(run: str, tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    out = tmp_path / "film.mp4"
    assert main(["render", run, *TASK, "--out", str(out), *SMALL]) == 0
    pictures, seconds = ffmpeg.count_frames_and_secs(str(out))
    assert (pictures, seconds) == (101, pytest.approx(10.1))
    decode = [ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", out, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    content = subprocess.run(decode, capture_output=True, check=True).stdout
    film = np.frombuffer(content, np.uint8).reshape(pictures, -1, 80, 3)
    assert film.shape[1] % 2 == 0
    assert (film[-1].min(-1) < 128).any(), "letters, way and goal"
    assert (film[0] != film[-1]).any()
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_gif_does_not_drift_from_real_time(tmp_path: Path) -> None:
    slow, out = session(rounds="[1]"), tmp_path / "film.gif"
    family: Any = slow.family
    family.dt, family.horizon = 0.008, 200  # every third step is shown, for 24 ms
    render.film(slow, {"goal_x": 0.3, "goal_y": 0.4}, out, 40, 31)
    assert abs(sum(durations(out)[2]) - 1600) <= 20


@pytest.mark.usefixtures("opengl")
def test_a_robot_can_be_filmed(tmp_path: Path) -> None:
    untrained = session("half-cheetah-vel/maml2017", "[1,1]")
    made = Run.create(tmp_path / "run", yaml.safe_dump(config.to_tree(untrained.experiment)))
    made.save(0, untrained.state())
    out = tmp_path / "film.gif"
    assert main(["render", str(made.folder), "--task", "velocity=1", "--out", str(out), *SMALL]) == 0
    assert sum(durations(out)[2]) == 2010, "200 steps, 100 a second, and the last moment for a step"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--out film.avi", "out is 'film.avi'; allowed: a name that ends in .mp4 or .gif"),
        ("--out no/where/film.gif", "out is 'no/where/film.gif'; allowed: a name in a folder that exists"),
        ("--out ../FOLDER.gif", "out is '../FOLDER.gif', a folder; allowed: a file's name"),
        ("--out film.gif --fps 0", "fps is 0; allowed: 1 to 100"),
        ("--out film.gif --width 4", "width is 4; allowed: 16 to 4096 pixels"),
        ("--out film.gif --task goal_x=1", "task parameter 'goal_x' is given twice"),
        ("", "the following arguments are required: --out"),
        ("--out film.mp4", "an .mp4 needs the extra `video`: pip install imageio-ffmpeg"),
    ],
)
def test_what_cannot_be_filmed_is_said_in_a_line(
    options: str,
    message: str,
    run: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "FOLDER.gif").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert main(["render", run, *TASK, *options.split()]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"metarl: error: {message}")
    assert [*(tmp_path / "work").iterdir()] == []
