"""The report: one file that opens offline, says what it should, and is the same for the same run."""

import base64
import io
import json
import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from metarl import Act, ConfigError, Rollout, Step, TaskParameter
from metarl.experiments import Experiment, build, override, read, restored, split_settings, start, to_tree
from metarl.runs import Run

adaptation, by_task, curves, figures, material, motion, report, solvers = (
    import_module(f"metarl.experiments.{name}")
    for name in ("adaptation", "by_task", "curves", "figures", "material", "motion", "report", "solvers")
)

SECTIONS = ["adaptation", "learning", "paths", "map", "tasks", "costs"]
FAMILIES = ("navigation/maml2017", "navigation-sparse/pearl2019")  # two task parameters, and one


def experiment(family: str) -> Experiment:
    tree = {"family": family, "iterations": 2, "meta_batch_size": 2, "rounds": (2, 2), "tensorboard": False}
    return build(
        {**tree, "agent": {"name": "maml_trpo", "hidden": (4,)}, "evaluation": {"rounds": (2, 2, 2)}}
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {family: start(experiment(family), folder / str(i)) for i, family in enumerate(FAMILIES)}


@pytest.fixture(params=FAMILIES)
def page(request: pytest.FixtureRequest, runs: dict[str, Run]) -> str:
    """The text of a family's report."""
    return runs[request.param].report.read_text()


def part(page: str, name: str) -> str:
    """One section of a report."""
    found = re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)
    assert found, name
    return found[0]


def of(run: Run) -> Any:
    """What a report is made of."""
    _, session = restored(run.folder)
    test, ood = (json.loads(run.evaluation(split).read_text()) for split in ("test", "ood"))
    return material.Material(run, session, test, ood, run.read_metrics())


def shown(value: float) -> str:
    return f"{value:,.{3 if abs(value) < 1 else 2}f}".replace("-", "−")


@pytest.fixture(scope="module")
def cheetah(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of a robot's report."""
    run = start(experiment("half-cheetah-vel/promp2019"), tmp_path_factory.mktemp("cheetah") / "run")
    return run.report.read_text()


class Still:
    """Stays where it is."""

    plays = ("navigation/",)

    @dataclass
    class Config:
        episodes: int
        horizon: int

    def __init__(self, observations: Any, actions: Any, rng: Any, config: Config) -> None:
        assert (config.episodes, config.horizon) == (8, 20)
        self.size = actions.shape

    @classmethod
    def settings_for(cls, family: str) -> dict[str, Any]:
        return {}

    def check_rounds(self, rounds: Sequence[int]) -> None:
        """Any will do."""

    def begin(self, tasks: int, episodes: int) -> None:
        """Nothing to know."""

    def act(self, belief: None, step: Step, explore: bool) -> tuple[Act, None]:
        zero = torch.zeros_like(step.reward)
        return Act(zero.new_zeros(*zero.shape, *self.size), zero, zero), None

    def adapt(self, belief: None, rollout: Rollout) -> None:
        """Nothing to learn."""


class Picky(Still):
    """Refuses all rounds."""

    def check_rounds(self, rounds: Sequence[int]) -> None:
        raise ConfigError("rounds is odd")


class Elsewhere(Still):
    """For other families."""

    plays = ("bandit/",)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was evaluated in many rounds, beside a solver."""
    tree = to_tree(experiment("navigation/pearl2019"))
    tree |= {"rounds": "11 x 1", "evaluation": {"rounds": "8 x 1"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solvers, "SOLVERS", {"still": Still, "picky": Picky, "elsewhere": Elsewhere})
        return start(build(tree), tmp_path_factory.mktemp("long") / "run")


class Tags(HTMLParser):
    """All tags of a page, each with its attributes, and whether all that opens is closed."""

    VOID = ("meta",)

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def values(self, *names: str) -> list[str]:
        return [v for _, attributes in self.found for k, v in attributes.items() if k in names and v]


# --- the file


def test_it_is_one_file_that_refers_to_nothing_outside(page: str) -> None:
    tags = Tags(page)
    assert not tags.open
    assert not {tag for tag, _ in tags.found} & {"link", "script", "img", "iframe", "object", "base"}
    links = tags.values("href", "xlink:href", "src", "srcset", "action", "data")
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*[\"']?([^)]*)", page))
    assert "@import" not in page
    assert len(page) < 1_500_000


def test_ids_are_unique_and_every_reference_meets_one(page: str) -> None:
    tags = Tags(page)
    ids = tags.values("id")
    assert len(ids) == len(set(ids))
    clips = re.findall(r"url\(#([^)]*)\)", page)
    uses = [value[1:] for value in tags.values("href") if value.startswith("#")]
    assert clips
    assert uses
    assert set(clips + uses) <= set(ids)


def test_every_picture_is_well_formed(page: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    names = [ET.fromstring(picture).attrib["aria-label"] for picture in pictures]
    assert names == ["adaptation", "learning", "diagnostics", "paths", "map", "tasks", "beyond"]


def test_the_sections_stand_in_order(page: str) -> None:
    assert re.findall(r'<section id="(\w+)">', page) == SECTIONS
    assert page.index("<header>") < page.index('<section id="adaptation">')


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_run_gives_the_same_bytes_and_is_not_changed(family: str, runs: dict[str, Run]) -> None:
    first = runs[family].report.read_bytes()
    run, session = restored(runs[family].folder)
    before = session.rng.get_state(), *(value.clone() for value in session.agent.state_dict().values())
    run.report.unlink()
    assert report.write_report(run, session) == run.report
    assert run.report.read_bytes() == first
    after = session.rng.get_state(), *session.agent.state_dict().values()
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


# --- what it says


@pytest.mark.parametrize("family", FAMILIES)
def test_the_adaptation_curve_shows_all_its_numbers(family: str, runs: dict[str, Run]) -> None:
    run, session = restored(runs[family].folder)
    found = json.loads(run.evaluation("test").read_text())
    section = part(run.report.read_text(), "adaptation")
    for r in found["rounds"]:
        for value in (r["mean"], *r["ci95"], r["iqm"], r["cvar5"], found["oracle"] - r["mean"]):
            assert f"<td>{shown(value)}</td>" in section
    for name in ("floor", "oracle"):
        assert f"<td>{name}</td><td>{shown(found[name])}</td>" in section
        assert re.search(rf"<text[^>]*>{name}(: [\d,]+)?</text>", section)  # one far off is only named
    for p in session.family.published:
        cells = "".join(
            f"<td>{shown(value)}</td>" for value in (p.returns * 3 if len(p.returns) == 1 else p.returns)[:3]
        )
        assert f"<td>{p.name}, published</td>{cells}</tr>" in section
        assert re.search(rf"<text[^>]*>{p.name}, published</text>", section)
    assert bool(session.family.published) == ("published" in section)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_controls_stand_beside_the_curve(family: str, runs: dict[str, Run]) -> None:
    run = runs[family]
    section = part(run.report.read_text(), "adaptation")
    for name, text in (("shuffled", "another task's memory"), ("wiped", "memory wiped")):
        value = json.loads(run.evaluation("test").read_text())["controls"][name]["mean"]
        assert (
            f"<td>{text.replace(chr(39), '&#x27;')}</td><td></td><td></td><td>{shown(value)}</td>" in section
        )
        assert re.search(rf"<text[^>]*>{text}(: [−\d,]+)?</text>", section)


def test_navigation_has_published_values_to_show(runs: dict[str, Run]) -> None:
    section = part(runs[FAMILIES[0]].report.read_text(), "adaptation")
    assert all(value in section for value in ("−40.41", "−11.68", "−3.33", "−82.66", "−2.29"))


def test_the_evaluation_beyond_the_trained_range_is_a_table(runs: dict[str, Run]) -> None:
    run = runs[FAMILIES[0]]
    found = json.loads(run.evaluation("ood").read_text())
    cells = "".join(f"<td>{shown(r['mean'])}</td>" for r in found["rounds"])
    assert f"<td>mean</td>{cells}" in part(run.report.read_text(), "tasks")


def test_the_map_names_its_axes_and_its_colours(runs: dict[str, Run]) -> None:
    two, one = (part(runs[family].report.read_text(), "map") for family in FAMILIES)
    for label in ("goal_x (units)", "goal_y (units)", "return", "before adaptation", "after 2 adaptations"):
        assert f">{label}</text>" in two
    for label in ("angle (rad); grey: trained range", "return", "floor", "after 2 adaptations"):
        assert f">{label}</text>" in one


@pytest.mark.parametrize(("tasks", "side"), [(9, 3), (8.99, 2), (3.99, 0)])
def test_a_map_costs_no_more_steps_than_it_may(
    tasks: float, side: int, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = of(runs[FAMILIES[0]])
    monkeypatch.setattr(by_task, "MAP_STEPS", tasks * 6 * made.session.family.horizon)
    section = by_task.by_parameter(made)
    assert f"{side * side} tasks on a grid" in section if side else section == ""


def test_a_family_without_a_plane_has_no_paths(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    made = of(runs[FAMILIES[1]])
    assert 'id="paths"' in by_task.plane(made)
    monkeypatch.setattr(type(made.session.family), "view", "velocity")
    assert by_task.plane(made) == ""


def test_the_costs_are_those_of_the_run(runs: dict[str, Run]) -> None:
    run = runs[FAMILIES[0]]
    section = part(run.report.read_text(), "costs")
    last = run.read_metrics()[-1]
    for name, value in {
        "training: iterations": "2",
        "training: episodes": "16",  # 2 iterations of 2 tasks, 2 + 2 episodes each
        "training: environment steps": f"{last['env_steps']:,}",
        "training: seconds": f"{last['seconds']:,.1f}",
        "adaptation to one task: episodes before each adaptation": "2 + 2",
        "adaptation to one task: environment steps, at most": "400",
        "evaluation, unseen tasks and beyond: episodes": "480",  # 3 rounds of 2 in 40 + 40 tasks
        "evaluation, unseen tasks and beyond: environment steps, at most": "48,000",
        "evaluation, the last round anew, with changed memory: episodes": "320",  # 2 in 80 tasks, twice
    }.items():
        assert f"<td>{name}</td><td>{value}</td>" in section


def test_the_header_tells_seed_protocol_and_versions(page: str) -> None:
    header = page[page.index("<header>") : page.index("</header>")]
    for text in ("maml_trpo", "2 + 2 + 2 episodes of each task", "0 (evaluation: 1)", "all exploring"):
        assert text in header
    assert all(f"{name} {version}" in header for name, version in report.versions().items())


def test_text_of_the_user_is_escaped(runs: dict[str, Run]) -> None:
    made = of(runs[FAMILIES[1]])
    object.__setattr__(made.session.experiment, "description", "<b>&")
    assert "&lt;b&gt;&amp;" in report.header(made)


def test_the_command_repeats_the_experiment() -> None:
    wanted = experiment(FAMILIES[0])
    program, verb, name, *flags = shlex.split(report.command(wanted))
    assert (program, verb) == ("metarl", "train")
    own, settings = split_settings(flags)
    again = build(override(read(name), settings))
    assert not own
    object.__setattr__(again, "description", wanted.description)
    assert again == wanted


def test_an_experiment_like_none_that_is_shipped_is_repeated_from_its_file() -> None:
    assert report.command(experiment("navigation-sparse/varibad2020")) == "metarl train run.yaml"


# --- many rounds, and solvers


def test_a_long_trial_is_told_by_some_rounds_and_by_totals(long: Run) -> None:
    found, page = json.loads(long.evaluation("test").read_text()), long.report.read_text()
    section = part(page, "adaptation")
    assert len(found["rounds"]) == 8
    told = (0, 1, 2, 4, 6, 7)
    head = "".join(f"<th>{k}</th>" for k in told)
    mean = "".join(f"<td>{shown(found['rounds'][k]['mean'])}</td>" for k in told)
    assert f"<th>episodes</th>{head}" in section
    assert f"<td>mean</td>{mean}" in section
    assert "<th>first rounds</th><th>8</th>" in section
    assert f"<td>mean</td><td>{shown(found['total']['mean'])}</td>" in section
    assert f"<td>oracle</td><td>{shown(8 * found['oracle'])}</td>" in section
    assert found["total"]["mean"] == pytest.approx(sum(r["mean"] for r in found["rounds"]))
    header = page[: page.index("</header>")]
    assert "after 7 episodes" in header
    assert "8 x 1 episodes of each task" in header
    assert f"In all 8 rounds together it earns <b>{shown(found['total']['mean'])}</b>" in header
    assert not Tags(page).open


def test_a_long_training_shows_some_rounds_and_all_together(long: Run) -> None:
    section = part(long.report.read_text(), "learning")
    assert "return_total" in long.read_metrics()[0]
    assert re.findall(r'aria-label="(\w+)"', section) == ["learning", "learning_total", "diagnostics"]
    for label in ("in the first episode", "after 1 episode", "after 10 episodes", "all 11 rounds together"):
        assert f">{label}</text>" in section


def test_solvers_stand_beside_the_agent(long: Run) -> None:
    found, page = json.loads(long.evaluation("test").read_text()), long.report.read_text()
    assert found["solvers"].keys() == {"still"}, "one refuses such rounds, and one is for other families"
    still = found["solvers"]["still"]
    assert len(still["rounds"]) == 8
    assert still["total"]["mean"] == pytest.approx(sum(still["rounds"]))
    section = part(page, "solvers")
    assert f"<td>still</td><td>{shown(still['total']['mean'])}</td>" in section
    assert ">still</text>" in section
    assert ">maml_trpo</text>" in section
    assert page.index('id="adaptation"') < page.index('id="solvers"') < page.index('id="learning"')
    assert not Tags(section).open


def test_a_solver_that_is_left_out_is_named(capsys: pytest.CaptureFixture[str], long: Run) -> None:
    _, session = restored(long.folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solvers, "SOLVERS", {"picky": Picky})
        assert solvers.solved(session.family, session.experiment.evaluation, "test") == {}
    assert capsys.readouterr().err == "metarl: the solver picky is left out: rounds is odd\n"


def test_solvers_do_not_touch_the_agents_numbers(long: Run, tmp_path: Path) -> None:
    alone = start(build(read(long.config)), tmp_path / "run")
    ours, theirs = (json.loads(run.evaluation("test").read_text()) for run in (long, alone))
    assert theirs.pop("solvers") == {} != ours.pop("solvers")
    assert ours == theirs


def test_a_share_of_the_best_solver_by_hand() -> None:
    def totals(*means: float) -> dict[str, Any]:
        return {"totals": [{"mean": mean} for mean in means]}

    found = {**totals(3.0, 9.0, -2.0, 1.0), "solvers": {"a": totals(6, 10, 4, -1), "b": totals(4, 12, 4, -2)}}
    assert solvers.shares(found) == ["0.500", "0.750", "", ""]  # of 6 and of 12; debts have no shares


# --- pictures


@pytest.mark.parametrize(("worse", "drawn"), [(-20.0, True), (-31.0, False)])
def test_a_control_far_below_is_named_and_not_drawn(worse: float, drawn: bool) -> None:
    # what is seen spans ten, so that twenty below its least is near
    axes = Figure().subplots()
    labels = curves.controls(axes, {"wiped": {"mean": worse}}, 3, [0.0, 10.0])
    assert bool(axes.lines) == drawn
    assert labels == [
        (worse, "memory wiped", figures.BLUE) if drawn else (0.0, "memory wiped: −31", figures.BLUE)
    ]


def test_a_path_stops_where_its_episode_ends() -> None:
    # two episodes of three steps; the first terminates with its second step, and then stands still
    places = torch.tensor([[[0.0, 0.0], [5.0, 5.0]], [[1, 0], [5, 6]], [[2, 0], [5, 7]], [[2, 0], [5, 8]]])
    obs = places[:, None]  # [T + 1, N, E, O]
    terminated = torch.tensor([[[False, False]], [[True, False]], [[True, False]]])
    zero = torch.zeros(3, 1, 2)
    rollout = Rollout(obs[:-1], zero, zero, terminated, obs[1:], zero, zero, zero)
    [[short, whole]] = figures.walks(rollout)
    assert short.tolist() == [[0, 0], [1, 0], [2, 0]]
    assert whole.tolist() == [[5, 5], [5, 6], [5, 7], [5, 8]]
    assert len(figures.walks(rollout, episodes=1)[0]) == 1


def test_labels_give_way_by_hand() -> None:
    assert curves.spread([0.0, 5.0], 1.0) == [0.0, 5.0]
    assert curves.spread([0.0, 0.0], 1.0) == [-0.5, 0.5]
    assert curves.spread([0.0, 0.0, 0.25], 1.0) == pytest.approx([1 / 12 - 1, 1 / 12, 1 / 12 + 1])


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12).map(sorted), st.floats(0.01, 20))
def test_labels_never_overlap_and_stay_where_they_are_on_average(values: list[float], gap: float) -> None:
    places = curves.spread(values, gap)
    assert np.diff(places).min(initial=gap) >= gap - 1e-9
    assert np.mean(places) == pytest.approx(np.mean(values), abs=1e-9)


def test_a_picture_is_small_and_its_text_is_kept() -> None:
    def draw(figure: Figure) -> None:
        figure.subplots().plot([0, 1 / 3], [0, 1 / 7])
        figure.text(0.5, 0.5, "0.123456789")

    picture = figures.svg("name", 300, 200, draw)
    assert ">0.123456789</text>" in picture
    root = ET.fromstring(picture)
    assert (root.attrib["width"], root.attrib["height"]) == ("300", "200")
    assert not [v for tag in root.iter() for v in tag.attrib.values() if re.search(r"\.\d{3}", v)]
    assert all(tag.attrib["id"].startswith("name-") for tag in root.iter() if "id" in tag.attrib)


def test_a_running_mean_is_centred() -> None:
    x = np.arange(60.0)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        curves.smoothed_line(axes, x, 2 * x, "black")
        raw, smooth = (line.get_xydata() for line in axes.lines)
        assert np.array_equal(raw, np.stack([x, 2 * x], 1))
        assert np.allclose(smooth, np.stack([x, 2 * x], 1)[1:-1])  # a line's mean over three is itself

    figures.svg("line", 200, 200, draw)


# --- robots


def test_motion_shows_speeds_against_the_goal_that_is_theirs(cheetah: str) -> None:
    section = part(cheetah, "motion")
    assert len(re.findall(r"<text[^>]*>[−\d.]+ → [−\d.]+</text>", section)) == motion.SHOWN
    assert section.count(figures.GREEN) >= motion.SHOWN  # a dotted goal in each panel
    assert "that the agent is never told" in section


def test_motion_has_a_strip_of_pictures_for_each_end(cheetah: str, opengl: None) -> None:
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', part(cheetah, "motion"))
    assert len(pictures) == 2
    for picture in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(picture)))
        assert image.size == (8 * 160, 120)
        assert len(np.unique(np.array(image).reshape(-1, 3), axis=0)) > 50  # not a blank one


def test_motion_says_where_there_are_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(width: int, height: int) -> None:
        raise ImportError("no such library")

    rendering = import_module("metarl.envs.rendering")
    monkeypatch.setattr(rendering, "_contexts", lambda name: broken)
    run = start(experiment("half-cheetah-vel/promp2019"), tmp_path / "run")
    section = part(run.report.read_text(), "motion")
    assert "There are no pictures of the robot here" in section
    assert "data:image" not in section


def test_navigation_has_no_motion(page: str) -> None:
    assert '<section id="motion">' not in page


# --- bounds that are far off


@pytest.mark.parametrize(("oracle", "label"), [(20.0, "oracle"), (31.0, "oracle: far above")])
def test_a_bound_is_drawn_where_that_leaves_the_returns_readable(oracle: float, label: str) -> None:
    space = TaskParameter("speed", "m/s", 0.0, 1.0, 0.0, 1.0)
    scores, along = (
        np.array([[0.0, 4.0], [6.0, 10.0]]),
        np.linspace(0, 1, 5),
    )  # ten apart: twenty above is near
    axes = Figure().subplots()
    bounds = np.zeros(5), np.full(5, oracle)
    figures.return_by_parameter(axes, space, np.array([0.2, 0.8]), scores, along, bounds)
    (line,) = (line for line in axes.get_lines() if str(line.get_label()).startswith("oracle"))
    assert line.get_label() == label
    assert (np.size(line.get_xdata()) > 0) == (label == "oracle")
