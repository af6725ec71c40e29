"""The task families, by name; a new one is one file and one line here."""

import torch

from metarl import Family, device, unknown

from .check import check_family
from .gymnasium_view import GymnasiumView, gymnasium_id, register
from .half_cheetah import HalfCheetahVelMaml2017, HalfCheetahVelPearl2019
from .navigation import (
    NavigationMaml2017,
    NavigationPearl2019,
    SparseNavigationPearl2019,
    SparseNavigationVaribad2020,
)
from .physics import Physics, gymnasium_model, simulate
from .tasks import beyond, from_box, from_pool, named_tasks

FAMILIES = {
    family.name: family
    for family in (
        NavigationMaml2017,
        NavigationPearl2019,
        SparseNavigationPearl2019,
        SparseNavigationVaribad2020,
        HalfCheetahVelMaml2017,
        HalfCheetahVelPearl2019,
    )
}


def make(name: str, device_name: str | torch.device = "cpu") -> Family:
    """The family of that name on a device; ConfigError, with the names that exist, for another name."""
    if name not in FAMILIES:
        raise unknown("family", name, FAMILIES)
    return FAMILIES[name](device.resolve(device_name))


register(FAMILIES)

__all__ = [
    "FAMILIES",
    "GymnasiumView",
    "Physics",
    "beyond",
    "check_family",
    "from_box",
    "from_pool",
    "gymnasium_id",
    "gymnasium_model",
    "make",
    "named_tasks",
    "simulate",
]
