"""Between a PyTorch model and the flat vector. Imports torch, so nothing imports this until a model is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from safetensors import SafetensorError

from fedmq.schemas.errors import ConfigError
from fedmq.schemas.layout import Entry, Layout, Vector

__all__ = ["layout_of", "load_local", "load_vector", "local_state", "to_vector"]


def layout_of(model: torch.nn.Module, local_parameters: Sequence[str] = ()) -> Layout:
    """The layout of a model's floating-point entries, without those that stay on the device.

    Args:
        model: any module; integer buffers (BatchNorm's batch counter) are never part of a layout.
        local_parameters: name patterns (`head.*`) of entries that each device keeps to itself.

    Raises:
        ConfigError: no module, an entry of a type that can neither travel nor be kept, a pattern that fits nothing, or
            nothing to share.

    """
    if not isinstance(model, torch.nn.Module):
        raise ConfigError(f"build_model() gave a {type(model).__name__}, expected a torch.nn.Module")
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    entries = []
    unused = set(local_parameters)
    for name, tensor in _tensors(model).items():
        matching = {pattern for pattern in local_parameters if fnmatchcase(name, pattern)}
        unused -= matching
        dtype = str(tensor.dtype).removeprefix("torch.")
        if matching or not (tensor.is_floating_point() or name in parameters):
            if not _can_be_kept(tensor.dtype):
                raise ConfigError(
                    f"model entry {name!r} is {dtype}, which a device cannot keep; "
                    "give it another type, or register the buffer with persistent=False"
                )
            continue
        if dtype not in ("float16", "bfloat16", "float32", "float64"):
            raise ConfigError(f"model entry {name!r} is {dtype}, expected float32 or another real floating-point type")
        entries.append(Entry(name, tuple(tensor.shape), dtype, "parameter" if name in parameters else "statistic"))
    if unused:
        raise ConfigError(f"local_parameters {sorted(unused)[0]!r} fits no entry of the model; entries: {_some(model)}")
    if not any(entry.size for entry in entries):
        raise ConfigError("the model has no parameters to share")
    return Layout.of(entries)


def to_vector(model: torch.nn.Module, layout: Layout) -> Vector:
    """The model's entries as one new vector of this layout."""
    tensors = _tensors(model)
    vector = np.empty(layout.size, np.float32)
    for name, view in layout.views(vector).items():
        view[...] = _array(tensors[name])
    return vector


def load_vector(model: torch.nn.Module, layout: Layout, vector: Vector) -> None:
    """Write a vector of this layout into the model, in place; entries outside the layout stay as they are."""
    _write(model, layout.views(vector))


def local_state(model: torch.nn.Module, layout: Layout) -> dict[str, npt.NDArray[Any]]:
    """Copies of what stays on the device: the entries outside the layout."""
    shared = {entry.name for entry in layout.entries}
    return {name: _array(tensor).copy() for name, tensor in _tensors(model).items() if name not in shared}


def load_local(model: torch.nn.Module, state: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write back what `local_state` gave, but for entries that the model no longer has or has in another shape."""
    tensors = _tensors(model)
    fitting = {name: a for name, a in state.items() if name in tensors and tuple(tensors[name].shape) == a.shape}
    _write(model, fitting)


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    # state_dict may also hold what a module adds by get_extra_state, which is not a tensor.
    return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}


def _can_be_kept(dtype: torch.dtype) -> bool:
    """Whether the outbox can keep what is of this type and stays on the device."""
    try:
        safetensors.numpy.save({"none": _array(torch.empty(0, dtype=dtype))})
    except (SafetensorError, TypeError):  # numpy or safetensors does not know it
        return False
    return True


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu()
    # numpy has no bfloat16; float32 holds every value of it.
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _write(model: torch.nn.Module, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    tensors = _tensors(model)
    with torch.no_grad():
        for name, array in arrays.items():
            # A copy, because torch warns of read-only arrays, and received weights are read-only.
            tensors[name].copy_(torch.from_numpy(np.array(array)))


def _some(model: torch.nn.Module) -> str:
    names = list(_tensors(model))
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
