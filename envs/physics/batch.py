"""Physics on the CPU: mujoco.batch on all cores, bit-equal to MuJoCo's own step at any number of threads."""

import ctypes
from contextlib import suppress
from functools import cache
from pathlib import Path

import mujoco
import torch
from mujoco.batch import Batch
from torch import Tensor

from metarl import device

# MuJoCo raises nothing: it restarts a simulation whose numbers are bad, and counts a warning
DIVERGED = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADCTRL) + 1)


@cache
def stop_profiling() -> None:
    """Clear MuJoCo's profiling clock: it costs a sixth of the time, and only `MjData.timer` reads it.

    The Python bindings install it, and their set_mjcb_time(None) does so again; hence the C global itself.
    """
    for library in Path(mujoco.__file__).parent.glob("*mujoco.*"):
        with suppress(OSError, ValueError):  # not a library, or without that symbol: the clock stays
            ctypes.c_void_p.in_dll(ctypes.CDLL(str(library)), "mjcb_time").value = None


class CpuPhysics:
    """n simulations in one live float64 array; a step copies actions in, and nothing out.

    It wants the cores for itself: with more than one thread inside torch's operations, these wait
    actively for the next one while the physics runs, and halve its speed (metarl.device.one_thread).
    """

    def __init__(self, model: mujoco.MjModel, n: int) -> None:
        stop_profiling()
        self.n = n
        self._batch = Batch(model, n, nthread=device.workers())
        self.qpos, self.qvel, self._control = (
            torch.from_numpy(self._batch.bind(name)) for name in ("qpos", "qvel", "ctrl")
        )
        self._bad = torch.from_numpy(self._batch.warning)[:, DIVERGED, 1]  # [n, 4], counts since the reset

    def reset(self, qpos: Tensor, qvel: Tensor, ids: Tensor | None = None) -> None:
        """Forget everything, the solver's warm start included, then write positions and velocities."""
        self._batch.reset(None if ids is None else ids.numpy(), stage=mujoco.mjtStage.mjSTAGE_NONE)
        rows = slice(None) if ids is None else ids
        self.qpos[rows], self.qvel[rows] = qpos, qvel

    def step(self, control: Tensor, substeps: int) -> Tensor:
        """Call mj_step `substeps` times on each simulation; [n], bool: what has diverged since its reset."""
        self._control.copy_(control)
        self._batch.step(nstep=substeps)
        return (self._bad > 0).any(-1)
