"""Physics on a GPU: mujoco_warp in float32, the substeps of a control as one graph; the extra `gpu`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields as fields_of
from importlib import import_module
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from metarl import ConfigError

from .batch import HUGE, CpuPhysics, check_readable

POLL = 16  # steps between two looks at the capacities: each look waits for the GPU
CAPACITY = {  # the argument of make_data that bounds what has overflown, and what holds the bound
    "NEFC": ("njmax", "njmax"),
    "NJMAX_NNZ": ("njmax_nnz", "njmax_nnz"),
    "BROADPHASE": ("nconmax", "naconmax"),
    "NARROWPHASE": ("nconmax", "naconmax"),
    "CCD": ("nccdmax", "naccdmax"),
}
SWITCHED = {  # fields that the model is built without where they are zero
    "opt.wind": "has_fluid",
    "opt.density": "has_fluid",
    "opt.viscosity": "has_fluid",
    "tendon_stiffness": "has_tendon_stiffness",
    "tendon_damping": "has_tendon_damping",
}


def packages() -> tuple[Any, Any]:
    """The modules warp and mujoco_warp; ConfigError where they are not installed."""
    try:
        warp, mujoco_warp = import_module("warp"), import_module("mujoco_warp")
    except ImportError:
        raise ConfigError(
            "physics on a GPU needs mujoco-warp, which is not installed; pip install 'metarl-suite[gpu]'"
        ) from None
    warp.config.log_level = max(warp.config.log_level, warp.LOG_WARNING)  # not each kernel that it compiles
    warp.init()
    return warp, mujoco_warp


class WarpPhysics:
    """n simulations in float32 on one device; its tensors are warp's own arrays.

    A control step ends 1e-6 from where the CPU's ends. One thing mujoco_warp 4.0 does otherwise: below a
    capsule that stands steeper than 60 degrees on a plane it turns the edges of the friction pyramid,
    so that an ant's steps differ unless its model has elliptic cones.

    Kernels are compiled at the first use on a machine, for minutes, and kept in warp's cache in the home
    folder. `capacity` bounds what collisions may need (make_data's nconmax, njmax, ...): ConfigError in
    `step` or `reset` where that was too little, within POLL steps.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        n: int,
        device: torch.device,
        fresh: bool = False,
        capacity: Mapping[str, int] | None = None,
    ) -> None:
        self.n, self._device, self._fresh = n, device, fresh
        self._wp, self._mjw = packages()
        self._place = self._wp.device_from_torch(str(device))  # a bare "cuda" is the current one
        self._mask, self._lost = torch.ones(2, n, dtype=torch.bool, device=device)
        self._model, self._data = self._build(model, capacity or {})
        self._model.opt.warn_overflow = 0  # it prints; ours is an error
        self._mujoco, self._template = model, mujoco.MjData(model)
        self._host: CpuPhysics | None = None  # computes the constants that follow from varied fields
        self.qpos, self.qvel, self._control, self._overflow = (
            self._wp.to_torch(getattr(self._data, name)) for name in ("qpos", "qvel", "ctrl", "overflow")
        )
        self._derived: dict[str, Tensor] = {}
        self._graphs: dict[object, Any] = {}
        self._steps = 0
        self._warm_up()

    def _build(self, model: mujoco.MjModel, capacity: Mapping[str, int]) -> tuple[Any, Any]:
        """The model and the data on the device; ConfigError for a model with what mujoco_warp has not."""
        try:
            with self._wp.ScopedDevice(self._place):
                return self._mjw.put_model(model), self._mjw.make_data(model, self.n, **capacity)
        except NotImplementedError as error:
            raise ConfigError(f"the model does not run on a GPU: mujoco_warp says {str(error)!r}") from None

    def _warm_up(self) -> None:
        """Load all kernels, which cannot be done while a graph is captured, and leave the initial state."""
        with self._wp.ScopedDevice(self._place):
            for work in (self._substep, self._renew, self._clear):
                work()
            self._wp.synchronize_device(self._place)
        self._lost.zero_()

    def _substep(self) -> None:
        self._mjw.step(self._model, self._data)

    def _renew(self) -> None:
        """Compute what depends on positions and velocities, as mj_step1 does."""
        for stage in ("fwd_position", "sensor_pos", "fwd_velocity", "sensor_vel"):
            getattr(self._mjw, stage)(self._model, self._data)

    def _forward(self) -> None:
        self._mjw.forward(self._model, self._data)

    def _clear(self) -> None:
        """Put what the mask names into the model's initial state."""
        self._mjw.reset_data(self._model, self._data, self._wp.from_torch(self._mask))

    def _run(self, *work: Callable[[], None]) -> None:
        """Launch some work as one graph, captured when it is first asked for.

        On CUDA it queues up on torch's current stream, behind what torch has written: the one place
        where the two kinds of device differ.
        """
        if work not in self._graphs:
            with self._wp.ScopedDevice(self._place), self._wp.ScopedCapture() as capture:
                for part in work:
                    part()
            self._graphs[work] = capture.graph
        cuda = self._device.type == "cuda"
        stream = self._wp.stream_from_torch(torch.cuda.current_stream(self._device)) if cuda else None
        self._wp.capture_launch(self._graphs[work], stream)

    @property
    def state(self) -> Tensor:
        """Positions and velocities side by side, [n, nq + nv]."""
        return torch.cat([self.qpos, self.qvel], -1)

    def reset(self, qpos: Tensor, qvel: Tensor, ids: Tensor | None = None) -> None:
        """Forget everything, the solver's warm start included, then write positions and velocities."""
        self._check_capacity()
        self._mask.fill_(ids is None)
        if ids is not None:
            self._mask[ids] = True
        self._run(self._clear)
        self._lost &= ~self._mask
        self.qpos[self._mask], self.qvel[self._mask] = qpos.to(self.qpos), qvel.to(self.qvel)
        if self._derived:
            before = {name: array.clone() for name, array in self._derived.items()}
            self._run(self._forward)
            for name, array in self._derived.items():
                array.copy_(array.where(self._rows(self._mask, array), before[name]))

    def step(self, control: Tensor, substeps: int) -> Tensor:
        """Hold a control for some substeps; [n], bool: what has diverged since its reset.

        As MuJoCo does, a control that is NaN or huge becomes 0, and such a state the initial one.
        """
        sound = (control.abs() <= HUGE).all(-1).to(self._device)
        self._control.copy_(control).masked_fill_(~sound[:, None], 0.0)
        self._run(*[self._substep] * substeps, *[self._renew] * self._fresh)
        fine = self.state.abs().amax(-1) <= HUGE
        self._mask.copy_(~fine)
        self._run(self._clear)
        for array in self._derived.values():
            array.masked_fill_(self._rows(self._mask, array), 0)
        self._lost |= ~(sound & fine)
        self._steps += 1
        if self._steps % POLL == 0:
            self._check_capacity()
        return self._lost.clone()

    def _rows(self, mask: Tensor, array: Tensor) -> Tensor:
        """A mask [n] that broadcasts over the rows of an array [n, ...]."""
        return mask.view(-1, *[1] * (array.dim() - 1))

    def _check_capacity(self) -> None:
        """ConfigError that names what collisions have needed more of; MuJoCo itself has no such bounds."""
        if not self._overflow.any():  # it also counts a solver that stops early, which is no error
            return
        for flag, (name, bound) in CAPACITY.items():
            if (self._overflow & int(getattr(self._mjw.OverflowType, flag))).any():
                room = f"{bound} is {getattr(self._data, bound)}"
                raise ConfigError(
                    f"{room}, too little for {self.n} simulations; set family.capacity = {{{name!r}: ...}}"
                )

    def read(self, name: str) -> Tensor:
        """A derived array, refreshed by each reset and step from the next one on."""
        if name not in self._derived:
            check_readable(name)
            shape = np.shape(getattr(self._template, name))
            array = getattr(self._data, name, None)
            found = self._wp.to_torch(array) if isinstance(array, self._wp.array) else torch.empty(0)
            if found.numel() != self.n * math.prod(shape):
                raise ConfigError(f"derived array is {name!r}, which mujoco_warp keeps in another form")
            self._derived[name] = found.view(self.n, *shape)
        return self._derived[name]

    def vary(self, fields: Mapping[str, Tensor]) -> None:
        """Write model fields, one value a simulation, and what mj_setConst makes of them in float64."""
        for name, values in fields.items():
            switch = SWITCHED.get(name)
            if switch and values.any() and not getattr(self._model, switch):
                raise ConfigError(
                    f"model field {name!r} is 0 in the model, which then leaves it out of a step"
                )
        if self._host is None:
            self._host = CpuPhysics(self._mujoco, self.n)
        self._host.vary(fields)
        for name, rows in self._host.varied().items():
            if self._per_world(name):
                self._upload(name, torch.tensor(rows))
            elif name in fields:
                raise ConfigError(f"model field {name!r} is one for all simulations in mujoco_warp")
        self._wp.synchronize_device(self._place)

    def _owner(self, name: str) -> tuple[Any, str]:
        """What holds a model field, and the field's name in it."""
        own, _, field = name.rpartition(".")
        return (self._model.opt if own else self._model), field

    def _per_world(self, name: str) -> bool:
        owner, field = self._owner(name)
        shapes = {f.name: getattr(f.type, "shape", None) or ("",) for f in fields_of(owner)}
        return field in shapes and shapes[field][0] == "*"

    def _upload(self, name: str, values: Tensor) -> None:
        """Copy [n, ...] into a model field; the first time it gets n rows, and graphs are captured anew."""
        owner, field = self._owner(name)
        array = getattr(owner, field)
        if array.shape[0] != self.n or array.strides[0] == 0:
            array = self._wp.zeros((self.n, *array.shape[1:]), array.dtype, device=self._place)
            setattr(owner, field, array)
            self._graphs.clear()
            self._wp.synchronize_device(self._place)  # it was zeroed on a stream that is not torch's
        target = self._wp.to_torch(array)
        target.copy_(values.view(target.shape))
