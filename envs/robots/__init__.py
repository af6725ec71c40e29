"""What the YAML of a user's own robot says, and what it makes of an MJCF file."""

from .config import RobotConfig, is_robot, robot_config, robot_tree
from .model import HINGES, action_ranges, compiled, digest, driven, index_of, root_of, start_pose, travels
from .parameters import Parameter, pools
from .rewards import Moment
from .variations import Varied

__all__ = [
    "HINGES",
    "Moment",
    "Parameter",
    "RobotConfig",
    "Varied",
    "action_ranges",
    "compiled",
    "digest",
    "driven",
    "index_of",
    "is_robot",
    "pools",
    "robot_config",
    "robot_tree",
    "root_of",
    "start_pose",
    "travels",
]
