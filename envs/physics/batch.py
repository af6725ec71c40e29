"""Physics on the CPU: mujoco.batch on all cores, bit-equal to MuJoCo's own step at any number of threads."""

import ctypes
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import mujoco
import numpy as np
import torch
from mujoco.batch import DATA_FIELDS, MODEL_FIELDS, Batch
from torch import Tensor

from metarl import ConfigError, device

# MuJoCo raises nothing: it restarts a simulation whose numbers are bad, and counts a warning
DIVERGED = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADCTRL) + 1)
HUGE = 1e10  # mjMAXVAL: what MuJoCo calls bad, together with NaN
# what mj_step computes for none but the sensors that ask for it
SENSORS_ONLY = {"subtree_linvel", "subtree_angmom", "cacc", "cfrc_int", "cfrc_ext", "qfrc_inverse"}


@cache
def stop_profiling() -> None:
    """Clear MuJoCo's profiling clock: it costs a sixth of the time, and only `MjData.timer` reads it.

    The Python bindings install it, and their set_mjcb_time(None) does so again; hence the C global itself.
    """
    for library in Path(mujoco.__file__).parent.glob("*mujoco.*"):
        with suppress(OSError, ValueError):  # not a library, or without that symbol: the clock stays
            ctypes.c_void_p.in_dll(ctypes.CDLL(str(library)), "mjcb_time").value = None


def check_readable(name: str) -> None:
    """ConfigError for a name that is no array of MjData, or one that a step does not compute."""
    if name not in DATA_FIELDS:
        raise ConfigError(
            f"derived array is {name!r}; allowed: array fields of MjData, as xpos or sensordata"
        )
    if name in SENSORS_ONLY:
        raise ConfigError(
            f"{name!r} is not computed by a step; add a sensor to the model and read sensordata"
        )


class CpuPhysics:
    """n simulations in one live float64 array; a step copies actions in, positions and velocities out.

    It wants the cores for itself: with more than one thread inside torch's operations, these wait
    actively for the next one while the physics runs, and halve its speed (metarl.device.one_thread).
    """

    def __init__(self, model: mujoco.MjModel, n: int, fresh: bool = False) -> None:
        stop_profiling()
        self.n, self._fresh = n, fresh
        self._batch = Batch(model, n, nthread=device.workers())
        self._control = torch.from_numpy(self._batch.bind("ctrl"))
        motion = slice(1, 1 + model.nq + model.nv)  # in a row of the state, after the time
        self._motion = torch.from_numpy(self._batch.state)[:, motion]
        # whole rows lie far apart, and other cores wrote them: families read them all at once, once a step
        self._seen = torch.empty(self._motion.shape, dtype=self._motion.dtype)
        self.qpos, self.qvel = self._seen[:, : model.nq], self._seen[:, model.nq :]
        self._bad = torch.from_numpy(self._batch.warning)[:, DIVERGED, 1]  # [n, 4], counts since the reset
        self._derived: dict[str, Tensor] = {}

    @property
    def state(self) -> Tensor:
        """Positions and velocities side by side, [n, nq + nv]."""
        return self._seen

    def reset(self, qpos: Tensor, qvel: Tensor, ids: Tensor | None = None) -> None:
        """Forget everything, the solver's warm start included, then write positions and velocities."""
        chosen = None if ids is None else ids.numpy()
        self._batch.reset(chosen, stage=mujoco.mjtStage.mjSTAGE_NONE)
        rows = slice(None) if ids is None else ids
        self._motion[rows] = torch.cat([qpos, qvel], -1).to(self._motion)
        self._seen.copy_(self._motion)
        if self._derived:
            self._batch.forward(chosen)

    def step(self, control: Tensor, substeps: int) -> Tensor:
        """Call mj_step `substeps` times on each simulation; [n], bool: what has diverged since its reset."""
        self._control.copy_(control)
        again = self._fresh and self._derived
        stage = mujoco.mjtStage.mjSTAGE_VEL if again else mujoco.mjtStage.mjSTAGE_NONE
        self._batch.step(nstep=substeps, stage=stage)
        self._seen.copy_(self._motion)
        # MuJoCo looks at a state when it begins a step; what the last substep left is still to be looked at:
        # where the sum of all squares is below HUGE², no number is bad
        numbers = self._seen.view(-1)
        if not torch.dot(numbers, numbers).item() <= HUGE**2:
            self._restart()
        return self._bad.any(-1)

    def _restart(self) -> None:
        """Do to the simulations whose state is NaN or huge what MuJoCo would do at their next step."""
        bad = ~(self._seen.abs().amax(-1) <= HUGE)  # NaN is not
        self._batch.reset(bad.numpy())
        self._bad[bad] = 1
        self._seen.copy_(self._motion)

    def read(self, name: str) -> Tensor:
        """A derived array, refreshed by each reset and step from the next one on, and zero until then."""
        if name not in self._derived:
            check_readable(name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the array is not writable, torch's tensors all are
                self._derived[name] = torch.from_numpy(self._batch.bind(name))
        return self._derived[name]

    def vary(self, fields: Mapping[str, Tensor]) -> None:
        """Write model fields, one value a simulation, and run mj_setConst on the models that changed."""
        for name, values in fields.items():
            if name not in MODEL_FIELDS:
                raise ConfigError(
                    f"model field is {name!r}; allowed: fields of MjModel, as body_mass, opt.gravity"
                )
            shape, allowed = tuple(values.shape), self._batch.expand(name).shape
            if shape != allowed:
                raise ConfigError(f"model field {name!r} has the shape {shape}; allowed: {allowed}")
        changed = np.zeros(self.n, bool)
        for name, values in fields.items():
            held, new = self._batch.expand(name), values.cpu().numpy()
            changed |= (held != new).reshape(self.n, -1).any(-1)
            held[...] = new
        self._batch.set_const(changed)

    def varied(self) -> dict[str, np.ndarray]:
        """The model fields that differ between simulations, derived constants among them, [n, ...] each."""
        found = {name: self._batch.expanded(name) for name in MODEL_FIELDS}
        return {name: values for name, values in found.items() if values is not None}
