"""The results page's tables of few-shot classification: every learner under every protocol."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from metarl.envs import Episodes, make

from .page import markdown

Study = Mapping[str, Any]
PROTOCOLS = ("5w1s", "5w5s", "20w1s", "20w5s")
INDUCTIVE = "inductive batch norm"
# settings that may differ between an agent's trainings with five and with twenty classes
BY_WAY = ("anneal", "chunk_size", "inner_batch", "adapt_steps", "adapt_lr")

# Accuracy in % on Omniglot, turned characters being classes, under each protocol, from the methods' papers
PUBLISHED: dict[str, tuple[str, ...]] = {
    "maml": ("98.7", "99.9", "95.8", "98.9"),
    "fomaml": ("98.3", "99.2", "89.4", "97.9"),
    "reptile": ("97.7", "99.5", "89.4", "97.1"),
    "meta_sgd": ("99.5", "99.9", "95.9", "99.0"),
    "siamese": ("97.3", "98.4", "88.2", "97.0"),
    "matching": ("98.1", "98.9", "93.8", "98.5"),
    "prototypical": ("98.8", "99.7", "96.0", "98.9"),
    "relation": ("99.6", "99.8", "97.6", "99.1"),
}
WORDS = """
## Few-shot classification

Accuracy in % over 600 episodes of classes that training never saw, with the 95 % interval: over seeds where
there are several, else over episodes. 5w1s is five classes and a picture of each to learn from; a learner is
trained once, or once for each number of classes where a line has two studies, and tested with more pictures.
Seeds and minutes are those of each training. In parentheses stands the accuracy where the support set's
statistics normalise the queries (inductive), not their own (transductive). All networks are four convolutions
of 32 channels (Reptile's of 64 on Omniglot's five classes), trained for the minutes given, on one core: the
published values are of longer trainings of larger networks. Chance is 20 % of five classes and 5 % of twenty;
the ceiling is 100 %.
"""


class Score(NamedTuple):
    """An accuracy with its interval; where there is one, that of the other batch norm."""

    mean: float
    low: float
    high: float
    inductive: float | None

    def __str__(self) -> str:
        other = f" ({100 * self.inductive:.1f})" if self.inductive is not None else ""
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]{other}"


def is_pictures(study: Study) -> bool:
    """Whether a study is one of few-shot classification."""
    return isinstance(make(study["settings"]["family"]), Episodes)


def tables(studies: Mapping[str, Study]) -> str:
    """A table for each set of pictures that was learned from, and one of those tested on others."""
    parts = [WORDS]
    scored = {name: scores(study) for name, study in studies.items()}
    for pictures in sorted({own(study) for study in studies.values()}):
        here = {name: study for name, study in studies.items() if own(study) == pictures}
        body = []
        for row in rows(here, scored):
            found = {key: score for name in row for key, score in scored[name].items()}
            each = [cells(name, here[name]) for name in row]
            line = [", ".join(column) for column in zip(*each, strict=True)]
            line[1] = here[row[0]]["agent"]
            body.append([*line, *told(found, pictures, PROTOCOLS), *published(here[row[0]], pictures)])
        known = [f"{p}, published" for p in PROTOCOLS] * (pictures == "omniglot")
        parts.append(markdown([f"{pictures}: study", "agent", "seeds", "minutes", *PROTOCOLS, *known], body))
    other = {name: s for name, s in scored.items() if any(key[0] != own(studies[name]) for key in s)}
    if other:
        body = []
        for name, found in other.items():
            elsewhere = next(key[0] for key in found if key[0] != own(studies[name]))
            body.append([*cells(name, studies[name]), elsewhere, *told(found, elsewhere, PROTOCOLS[:2])])
        head = ["learned elsewhere: study", "agent", "seeds", "minutes", "tested on", *PROTOCOLS[:2]]
        parts.append(markdown(head, body))
    return "\n".join(parts)


def rows(
    studies: Mapping[str, Study], scored: Mapping[str, Mapping[tuple[str, str], Score]]
) -> list[list[str]]:
    """The names in each line: trainings of one agent, with five and with twenty classes, stand in one.

    They have the same settings, but for those of BY_WAY, and answer for other protocols.
    """

    def settings(name: str) -> dict[str, Any]:
        agent = studies[name]["settings"]["agent"]
        return {key: value for key, value in agent.items() if key not in BY_WAY}

    def protocols(name: str) -> set[str]:
        return {protocol for pictures, protocol in scored[name] if pictures == own(studies[name])}

    found: list[list[str]] = []
    for name in studies:
        for row in found:
            taken = set[str]().union(*map(protocols, row))
            if settings(row[0]) == settings(name) and taken.isdisjoint(protocols(name)):
                row.append(name)
                break
        else:
            found.append([name])
    return found


def own(study: Study) -> str:
    """The pictures that a study learned from."""
    return str(study["family"].partition("/")[0])


def scores(study: Study) -> dict[tuple[str, str], Score]:
    """The last round's accuracies, by the pictures and the protocol."""
    protocols = study["settings"]["evaluation"]
    listed = [(study["family"], protocols["rounds"], {**study["rounds"][-1], "controls": last(study)})]
    for name, other in study.get("also", {}).items():
        listed.append((other["family"], protocols["also"][name]["rounds"], other))
    found = {}
    for family, rounds, r in listed:
        way = make(study["settings"]["family"] if family == study["family"] else family).action_space.n
        low, high = r["ci95"]
        score = Score(r["mean"], low, high, r["controls"].get(INDUCTIVE))
        found[family.partition("/")[0], f"{way}w{sum(rounds[:-1]) // way}s"] = score
    return found


def last(study: Study) -> dict[str, float]:
    """The means of the last round's controls."""
    return {name: r["mean"] for name, r in study["controls"].items()}


def cells(name: str, study: Study) -> list[str]:
    """What a row is about."""
    minutes = sum(study["seconds"]) / len(study["seconds"]) / 60
    return [f"[{name}](#{name})", study["agent"], str(len(study["seeds"])), f"{minutes:.1f}"]


def told(found: Mapping[tuple[str, str], Score], pictures: str, protocols: Sequence[str]) -> list[str]:
    """The accuracies on some pictures under each protocol; nothing where it was not played."""
    return [str(found.get((pictures, protocol), "")) for protocol in protocols]


def published(study: Study, pictures: str) -> list[str]:
    """What its paper reports."""
    if pictures != "omniglot":
        return []
    return [*PUBLISHED.get(study["agent"], ("",) * len(PROTOCOLS))]
