"""The tensors inside a file of whole pickled modules, with nothing of it run.

Many published files hold `nn.Module` objects (and optimizers) where a state dict would do.  They are read here by an
unpickler that knows four plain containers and how torch writes a tensor; every other name in the file, whatever it is,
stands for an empty shell that keeps its attributes.  Nothing is imported or called by the file's choosing.
"""

import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MAGIC = 0x1950A86A20F9469CFC6C  # of torch's files before 1.6


class Shell:
    """Stands for any object of a file; keeps its attributes, does nothing."""

    def __new__(cls, *given: Any, **named: Any) -> "Shell":
        return super().__new__(cls)

    def __init__(self, *given: Any, **named: Any) -> None:
        self.__dict__.clear()

    def __call__(self, *given: Any, **named: Any) -> "Shell":
        return self

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(name): value for name, value in state.items()})

    def __setitem__(self, name: Any, value: Any) -> None:
        """Takes what a dict-like object would, and forgets it."""

    def append(self, value: Any) -> None:
        """Takes what a list-like object would, and forgets it."""


class _Store(NamedTuple):
    key: str
    dtype: torch.dtype


class _Strided(NamedTuple):
    """A tensor whose numbers are still in the file."""

    store: _Store
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _strided(store: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    fine = isinstance(store, _Store) and isinstance(size, tuple) and isinstance(stride, tuple)
    return _Strided(store, int(offset), size, stride) if fine else Shell()


def _parameter(data: Any, *rest: Any) -> Any:
    return data


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _strided,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Restricted(pickle.Unpickler):
    """Unpickles plain data and shells; `stores` are the storages it met."""

    def __init__(self, file: Any, encoding: str = "ASCII") -> None:
        super().__init__(file, encoding=encoding)
        self.stores: dict[str, _Store] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        return _KNOWN.get((module, name), Shell)

    def persistent_load(self, pid: Any) -> Any:
        # ("storage", type, key, place, length, …), or ("module", class, source file, source) in old files
        if isinstance(pid, tuple) and len(pid) > 2 and pid[0] == "storage" and isinstance(pid[1], torch.dtype):
            return self.stores.setdefault(str(pid[2]), _Store(str(pid[2]), pid[1]))
        return Shell if isinstance(pid, tuple) and pid[:1] == ("module",) else Shell()


def tensors_in(file: Path) -> dict[str, Tensor]:
    """Reads every parameter and buffer of the modules in a file, named as `state_dict()` names them.

    The file holds a dict with modules in it, which gives names such as "decoder.fc.weight".  Raises ValueError where it
    holds none, and pickle.UnpicklingError, EOFError and the like where it is broken.
    """
    strided: dict[str, _Strided] = {}
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            top = next((name for name in packed.namelist() if name.endswith("/data.pkl")), None)
            if top is None:
                raise ValueError(f"{file} is a zip archive without data.pkl, not a file of torch.save")
            with packed.open(top) as pickled:
                _collect(_Restricted(pickled).load(), "", strided)
            folder = top.removesuffix(".pkl")
            stores = {one.store: packed.read(f"{folder}/{one.store.key}") for one in strided.values()}
    else:
        with file.open("rb") as pickled:
            stores = _old(pickled, strided)
    if not strided:
        raise ValueError(f"{file} holds no dict of modules with weights: save model.state_dict() instead")
    return {name: _tensor(one, stores[one.store]) for name, one in strided.items()}


def _old(pickled: Any, strided: dict[str, _Strided]) -> dict[_Store, bytes]:
    """Reads torch's format before 1.6: three small pickles, the object, the storages' keys, their numbers."""
    if _Restricted(pickled).load() != _MAGIC:
        raise pickle.UnpicklingError("not a file of torch.save")
    _Restricted(pickled).load(), _Restricted(pickled).load()  # protocol and machine
    reader = _Restricted(pickled, encoding="latin1")
    _collect(reader.load(), "", strided)
    stores: dict[_Store, bytes] = {}
    for key in map(str, _Restricted(pickled, encoding="latin1").load()):
        (count,) = struct.unpack("<q", pickled.read(8))
        if key not in reader.stores:
            raise pickle.UnpicklingError(f"no tensor of the file lies in its storage {key}")
        stores[reader.stores[key]] = pickled.read(count * reader.stores[key].dtype.itemsize)
    return stores


def _tensor(one: _Strided, numbers: bytes) -> Tensor:
    flat = torch.frombuffer(bytearray(numbers), dtype=one.store.dtype) if numbers else torch.empty(0)
    return flat.as_strided(one.size, one.stride, one.offset).clone()


def _collect(value: Any, name: str, found: dict[str, _Strided]) -> None:
    parts: dict[Any, Any] = {}
    if isinstance(value, Shell) and name:
        kept = vars(value)
        for group in ("_parameters", "_buffers", "_modules"):
            named = kept.get(group)
            parts |= named if isinstance(named, dict) else {}
    elif isinstance(value, dict) and not name:
        parts = {key: part for key, part in value.items() if isinstance(part, Shell)}
    for key, part in parts.items():
        full = f"{name}.{key}" if name else str(key)
        if isinstance(part, _Strided):
            found[full] = part
        elif isinstance(part, Shell):
            _collect(part, full, found)
