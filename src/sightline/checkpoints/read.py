"""Reads weights and config from a file, a folder or the hub, and never runs code found in them."""

import argparse
import contextlib
import json
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sightline.checkpoints.bundled import SUFFIXES
from sightline.checkpoints.pickled_modules import tensors_in
from sightline.checkpoints.variant import read_variant

IN_FOLDERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "weights.safetensors",
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# in this order: of DINO's two networks the teacher is the better, of timm's two states the moving average
_WRAPPERS = ("teacher", "student", "state_dict_ema", "state_dict", "model", "model_state")


class Contents(NamedTuple):
    """What a checkpoint holds: tensors by name, the config beside them ({} if none), where it lay."""

    state: dict[str, Tensor]
    config: dict[str, Any]
    origin: str


def read(path: str | Path) -> Contents:
    """Reads a weight file, a folder, or a hub id; floating tensors come back as float32, on the CPU.

    A file's config is the config.json beside it, if there is one, else Segmenter's variant.yml.  Raises
    FileNotFoundError where nothing is found and ValueError (one line, what to do) for a file that is broken or
    holds pickled objects.
    """
    place = Path(path).expanduser()
    if not place.exists():
        place = _from_hub(str(path))
    file = _weights_in(place) if place.is_dir() else place
    config = _config(file.parent / "config.json") or read_variant(file.parent)
    if file.name.endswith(".index.json"):
        raw: dict[Any, Any] = {}
        for shard in _shards(file):
            raw.update(_read_file(shard))
    else:
        raw = _read_file(file)
    return Contents(_plain(raw, str(file)), config, str(path))


def read_part(path: str | Path, name: str, *, needed: bool = True) -> dict[str, Tensor]:
    """Reads the tensors under one name of a file that holds several networks, {"student": …, "teacher": …}.

    Raises ValueError where there is no such part (`needed=False`: gives {}), and what `read` raises.
    """
    raw = _read_file(Path(path).expanduser())
    if not isinstance(raw.get(name), dict):
        if needed:
            raise ValueError(f"{path}: no {name!r} in it, only {shorten([str(key) for key in raw])}")
        return {}
    return _plain(raw[name], f"{path} ({name})")


def _weights_in(folder: Path) -> Path:
    for name in IN_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    found = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
    if len(found) == 1:
        return found[0]
    if not found:
        raise FileNotFoundError(f"no weights in {folder}: expected {', '.join(IN_FOLDERS)} or one file {SUFFIXES}")
    names = ", ".join(file.name for file in found)
    raise ValueError(f"{folder} holds several weight files ({names}): give the path of one of them")


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not readable JSON ({error}): download or save it again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} must hold a JSON object, found {type(config).__name__}")
    return config


def _shards(index: Path) -> list[Path]:
    table = _config(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ValueError(f'{index} has no "weight_map": download the checkpoint again')
    shards = [index.parent / str(name) for name in sorted(set(table.values()))]
    for shard in shards:
        # an index comes with the download: it may not point out of its own folder
        if shard.parent.resolve() != index.parent.resolve() or not shard.is_file():
            raise ValueError(f"{index} names {shard.name!r}, which is not a file beside it: download it again")
    return shards


def _read_file(file: Path) -> dict[Any, Any]:
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file} is no weight file: expected one of {', '.join(SUFFIXES)}")
    readers: dict[str, Callable[[Path], Any]] = {".safetensors": load_file, ".npz": _read_npz}
    try:
        raw = readers.get(file.suffix, _read_torch)(file)
    except _Refused as error:
        raise ValueError(f"{file} {error}") from error
    except _BROKEN as error:
        kind = type(error).__name__
        raise ValueError(
            f"{file} cannot be read as {file.suffix} (cut short or another format; {kind}): save it again"
        ) from error
    if not isinstance(raw, dict):
        raise ValueError(f"{file} holds a {type(raw).__name__}, not a state dict: save model.state_dict() instead")
    return raw


# what the captions of Xu et al. keep of their weights a second time, as an object
_PICKLED_COPIES = frozenset(("zipped_params",))


class _Refused(Exception):
    """A file that could be read only by running what is in it."""


_NEVER = "holds pickled Python objects, which are never unpickled here (they can run code): where it was made, "
# what torch, numpy and safetensors raise for files that are cut short, altered or of another format
_BROKEN = (
    SafetensorError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    MemoryError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def _read_torch(file: Path) -> Any:
    # DINO's files keep their arguments in a Namespace, which is plain data
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with file.open("rb") as opened:
            pickled = opened.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
        if pickled:
            with contextlib.suppress(*_BROKEN):
                return tensors_in(file)
            raise _Refused(f"{_NEVER}save torch.save(model.state_dict(), ...) and load that") from error
        raise
    except RuntimeError as error:
        if "TorchScript" in str(error):
            save = "torch.save(torch.jit.load(...).state_dict(), ...)"
            raise _Refused(f"is a TorchScript program, which is not run here: save {save} and load that") from error
        raise


def _read_npz(file: Path) -> dict[str, Any]:
    with zipfile.ZipFile(file) as packed:
        names = [name.removesuffix(".npy") for name in packed.namelist()]
    with np.load(file, allow_pickle=False) as arrays:
        read_ones: dict[str, Any] = {}
        for name in names:
            try:
                read_ones[name] = torch.from_numpy(np.ascontiguousarray(arrays[name]))
            except ValueError as error:
                if "allow_pickle" in str(error) and name in _PICKLED_COPIES:
                    continue
                if "allow_pickle" in str(error):
                    raise _Refused(f"{_NEVER}save plain arrays with numpy.savez") from error
                raise
    return read_ones


def _plain(raw: dict[Any, Any], origin: str) -> dict[str, Tensor]:
    """Unwraps {"model": ...} and the like, strips "module." and checks that only tensors are left."""
    for name in _WRAPPERS:
        if isinstance(raw.get(name), dict):
            return _plain(raw[name], origin)
    if raw and all(isinstance(name, str) and name.startswith("module.") for name in raw):
        raw = {name.removeprefix("module."): value for name, value in raw.items()}
    wrong = [str(name) for name, value in raw.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if wrong or not raw:
        what = f"entries that are no tensors: {shorten(wrong)}" if wrong else "no tensors"
        raise ValueError(f"{origin} holds {what}; expected a state dict, or one under {', '.join(_WRAPPERS)}")
    return {name: value.float() if value.is_floating_point() else value for name, value in raw.items()}


def shorten(names: list[str], most: int = 8) -> str:
    """Joins names for a message: the first few and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _from_hub(name: str) -> Path:
    if name.endswith(SUFFIXES) or not _HUB_ID.fullmatch(name):
        raise FileNotFoundError(f"no file or folder {name!r} (a hub id looks like owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=["config.json", *_patterns("model", "safetensors")]))
        if not any(folder.glob("model*.safetensors*")):
            folder = Path(snapshot_download(name, allow_patterns=["config.json", *_patterns("pytorch_model", "bin")]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"{name!r} is neither a file or folder here, nor in the hub's cache, nor could it be downloaded "
            f"({reason}): check the name and the network, or download the folder elsewhere and give its path"
        ) from error
    return folder


def _patterns(stem: str, suffix: str) -> list[str]:
    return [f"{stem}.{suffix}", f"{stem}-*.{suffix}", f"{stem}.{suffix}.index.json"]
