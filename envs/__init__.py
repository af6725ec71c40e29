"""The task families, by name; a new one is one file and one line here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metarl import ConfigError, Family, device, unknown

from .ant import AntDir2dPromp2019, AntDirPearl2019, AntGoalPearl2019, AntVelMaml2017
from .bandits import (
    BernoulliBandit5,
    BernoulliBandit10,
    BernoulliBandit50,
    GaussianBandit5,
    GaussianBandit10,
    GaussianBandit50,
)
from .check import check_family
from .few_shot import (
    Episodes,
    Glyphs5,
    Glyphs20,
    Images,
    Linear,
    Omniglot5,
    Omniglot20,
    PicturesConfig,
    Sinusoid,
    is_pictures,
    pictures_config,
    pictures_family,
    pictures_tree,
)
from .gridnavi import GridNaviVaribad2020
from .gymnasium_view import GymnasiumView, gymnasium_id, register
from .half_cheetah import (
    HalfCheetahDirMaml2017,
    HalfCheetahDirPearl2019,
    HalfCheetahVelAmago2024,
    HalfCheetahVelMaml2017,
    HalfCheetahVelPearl2019,
    HalfCheetahVelPromp2019,
    HalfCheetahVelRobust2023,
    HalfCheetahVelVaribad2020,
)
from .humanoid import HumanoidDirPearl2019
from .navigation import (
    NavigationMaml2017,
    NavigationPearl2019,
    SparseNavigationPearl2019,
    SparseNavigationVaribad2020,
)
from .physics import Physics, gymnasium_model, simulate
from .random_bodies import HopperParams, Walker2dParams
from .rendering import Painter, Picture, painter, poses, steps_per_second
from .robot import Robot
from .robots import RobotConfig, is_robot, robot_config, robot_tree
from .tabular import TabularMdpRl2
from .tasks import beyond, from_box, from_pool, named_tasks, tasks_of
from .told import Told
from .vector_view import VectorView

FAMILIES = {
    family.name: family
    for family in (
        NavigationMaml2017,
        NavigationPearl2019,
        SparseNavigationPearl2019,
        SparseNavigationVaribad2020,
        HalfCheetahVelMaml2017,
        HalfCheetahVelPearl2019,
        HalfCheetahVelPromp2019,
        HalfCheetahVelVaribad2020,
        HalfCheetahVelRobust2023,
        HalfCheetahVelAmago2024,
        HalfCheetahDirMaml2017,
        HalfCheetahDirPearl2019,
        AntVelMaml2017,
        AntDirPearl2019,
        AntDir2dPromp2019,
        AntGoalPearl2019,
        HumanoidDirPearl2019,
        HopperParams,
        Walker2dParams,
        BernoulliBandit5,
        BernoulliBandit10,
        BernoulliBandit50,
        GaussianBandit5,
        GaussianBandit10,
        GaussianBandit50,
        TabularMdpRl2,
        GridNaviVaribad2020,
        Sinusoid,
        Linear,
        Glyphs5,
        Glyphs20,
        Omniglot5,
        Omniglot20,
    )
}


def make(
    family: str | Path | Mapping[str, Any] | RobotConfig | PicturesConfig,
    device_name: str | torch.device = "cpu",
) -> Family:
    """The family of that name on a device, or a robot or pictures of your own, from YAML, a tree or a config.

    ConfigError, with the names that exist, for another name.
    """
    where = device.resolve(device_name)
    if is_pictures(family):
        family = pictures_config(family)  # type: ignore[arg-type]
    if isinstance(family, PicturesConfig):
        return pictures_family(family, where)
    if is_robot(family):
        family = robot_config(robot_tree(family))  # type: ignore[arg-type]
    if isinstance(family, RobotConfig):
        if family.name in FAMILIES:
            raise ConfigError(f"name is {family.name!r}, which is a family's already; allowed: another")
        return Robot(family, where)
    if not isinstance(family, str | Path):
        allowed = "a name, the path of a robot's YAML, its tree or a RobotConfig"
        raise ConfigError(f"family is {family!r}; allowed: {allowed}")
    if str(family) not in FAMILIES:
        raise unknown("family", family, FAMILIES)
    return FAMILIES[str(family)](where)


register(FAMILIES)

__all__ = [
    "FAMILIES",
    "Episodes",
    "GymnasiumView",
    "Images",
    "Painter",
    "Physics",
    "Picture",
    "PicturesConfig",
    "Robot",
    "RobotConfig",
    "Told",
    "VectorView",
    "beyond",
    "check_family",
    "from_box",
    "from_pool",
    "gymnasium_id",
    "gymnasium_model",
    "is_pictures",
    "is_robot",
    "make",
    "named_tasks",
    "painter",
    "pictures_config",
    "pictures_tree",
    "poses",
    "robot_config",
    "robot_tree",
    "simulate",
    "steps_per_second",
    "tasks_of",
]
