"""PyTorch's .pt files without PyTorch: tensors and plain values, read and written.

A .pt file is a zip archive: one pickle, and a member of raw numbers for each storage. The
pickle may name only what is in `_ALLOWED`, none of which is code of the file's choosing.
Layout: torch/csrc/jit/serialization and torch/_utils.py of PyTorch 1.6 to 2.x.
"""

import io
import itertools
import math
import pathlib
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from distilljax.disk import archives
from distilljax.disk.files import replacing
from distilljax.types import InputError

MAX_PICKLE = 16 << 20  # bytes; numbers lie in other members

_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
_NAMES = {np.dtype(code): name for name, code in _STORAGES.items()}


class _Storage(NamedTuple):
    dtype: np.dtype
    key: str
    num: int


class _Call:
    """Something that a pickle may call. It cannot be changed by the pickle."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError("the pickle sets an attribute of a function")


class _Dtype:
    """A numpy type as pickles make it: first its code, then its byte order."""

    def __init__(self, code: object, *flags: object) -> None:
        if code not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
            raise InputError(f"it holds a numpy number of type {code!r}, which is not read")
        self.dtype = np.dtype(str(code))

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", "|", "="):
            raise InputError(f"it holds a numpy number of byte order {order!r}")
        self.dtype = self.dtype.newbyteorder("<")


def _encode(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


def _scalar(dtype: object, data: object) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("a numpy number without a type")
    return np.frombuffer(data, dtype.dtype, count=1)[0].item()


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): lambda *items: dict(*items),
    ("torch._utils", "_rebuild_parameter"): lambda data, *rest: data,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, read: Callable[[_Storage], np.ndarray]) -> None:
        super().__init__(io.BytesIO(data))
        self._read = read

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name]).str
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Call(self._tensor)
        if (module, name) in _ALLOWED:
            return _Call(_ALLOWED[module, name])
        raise InputError(
            f"its pickle names {module}.{name}, which could run code; only tensors and "
            "plain values are read. If you trust its author, load it with PyTorch and give "
            "the tensors to foreign.from_tensors"
        )

    def persistent_load(self, found: Any) -> _Storage:
        kind, dtype, key, _, num = found
        if kind != "storage" or not isinstance(dtype, str) or not _is_size(num):
            raise pickle.UnpicklingError(f"a storage {found!r}")
        return _Storage(np.dtype(dtype), str(key), num)

    def _tensor(
        self, storage: _Storage, offset: Any, size: Any, stride: Any, *rest: Any
    ) -> Any:
        numbers = (offset, *size, *stride)
        if not isinstance(storage, _Storage) or not all(map(_is_size, numbers)):
            raise pickle.UnpicklingError("a tensor that is none")
        values = self._read(storage)
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        empty = 0 in size
        if not empty and (last >= len(values) or math.prod(size) > len(values)):
            raise InputError(f"a tensor of shape {list(size)} reaches beyond its numbers")
        steps = [s * values.itemsize for s in stride]
        start = values[:0] if empty else values[offset:]
        return np.lib.stride_tricks.as_strided(start, size, steps, writeable=False).copy()


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _checked(data: bytes) -> bytes:
    """The pickle, if nothing in it makes the unpickler allocate more than it holds."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            far = isinstance(argument, int) and argument > len(data)
            if "PUT" in opcode.name and far:
                raise InputError("its pickle has a memo larger than itself")
    except ValueError as error:
        raise InputError(f"its pickle is damaged ({error})") from None
    return data


def read(path: pathlib.Path) -> Any:
    """Returns what a .pt file holds: dictionaries, lists, numbers, numpy arrays.

    >>> import pathlib
    >>> pickles.write("small.pt", {"images": np.zeros((2, 3))})
    >>> pickles.read(pathlib.Path("small.pt"))["images"].shape
    (2, 3)

    Raises:
      InputError: no such file; a truncated or foreign one, or one of PyTorch before 1.6; a
        pickle that names anything but tensors and plain values; more than
        `archives.LIMIT` bytes.
    """
    try:
        with path.open("rb") as file:
            legacy = file.read(6) == b"\x80\x02\x8a\nl\xfc"
    except OSError:
        legacy = False
    if legacy:
        raise InputError(
            f"{path}: written by PyTorch before 1.6, which is not read; load it there and "
            "save it again with torch.save"
        )
    with archives.opened(path, "PyTorch file") as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise InputError("it has no data.pkl, so it was not written by torch.save")
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in names and archives.members(archive, [order], 100)[order] != b"little":
            raise InputError("its numbers are big-endian, which is not read")
        data = archives.members(archive, pickles, MAX_PICKLE)[pickles[0]]
        return _unpickle(archive, folder, data)


def _unpickle(archive: zipfile.ZipFile, folder: str, data: bytes) -> Any:
    held: dict[str, np.ndarray] = {}

    def numbers(storage: _Storage) -> np.ndarray:
        if storage.key not in held:
            left = archives.LIMIT - sum(values.nbytes for values in held.values())
            name = f"{folder}data/{storage.key}"
            raw = archives.members(archive, [name], left)[name]
            if len(raw) != storage.num * storage.dtype.itemsize:
                raise InputError(
                    f"{name} has {len(raw)} bytes for {storage.num} {storage.dtype} numbers"
                )
            held[storage.key] = np.frombuffer(raw, storage.dtype)
        return held[storage.key]

    try:
        return _Unpickler(_checked(data), numbers).load()
    except InputError:
        raise
    except (pickle.UnpicklingError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"its pickle is damaged ({error})") from None


def write(path: pathlib.Path | str, value: Any) -> None:
    """Writes a .pt file that `torch.load(path, weights_only=True)` reads.

    >>> pickles.write("small.pt", {"images": np.zeros((2, 3)), "lr": 0.1})

    Args:
      path: of the file.
      value: dictionaries, lists, tuples, texts, numbers, None and numpy arrays, which
        become tensors.

    Raises:
      InputError: another value, or a type of number that tensors do not have.
    """
    arrays: list[np.ndarray] = []
    stream = pickle.PROTO + b"\x02" + _pickled(value, arrays) + pickle.STOP
    folder = pathlib.Path(path).stem
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", stream)
        archive.writestr(f"{folder}/byteorder", "little")
        for number, array in enumerate(arrays):
            archive.writestr(f"{folder}/data/{number}", array.tobytes())
        archive.writestr(f"{folder}/version", "3\n")


def _pickled(value: Any, arrays: list[np.ndarray]) -> bytes:
    """The opcodes that make a value, in protocol 2; its arrays are appended to `arrays`."""

    def inside(values: Any) -> bytes:
        return b"".join(_pickled(each, arrays) for each in values)

    if isinstance(value, np.ndarray):
        return _tensor(value, arrays)
    if isinstance(value, dict):
        items = inside(itertools.chain.from_iterable(value.items()))
        return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    if isinstance(value, list):
        return pickle.EMPTY_LIST + pickle.MARK + inside(value) + pickle.APPENDS
    if isinstance(value, tuple):
        return pickle.MARK + inside(value) + pickle.TUPLE
    if value is None:
        return pickle.NONE
    if isinstance(value, bool):
        return pickle.NEWTRUE if value else pickle.NEWFALSE
    if isinstance(value, str):
        text = value.encode()
        return pickle.BINUNICODE + struct.pack("<I", len(text)) + text
    if isinstance(value, int) and abs(value) < 1 << 31:
        return pickle.BININT + struct.pack("<i", value)
    if isinstance(value, int):
        digits = pickle.encode_long(value)
        return pickle.LONG1 + bytes([len(digits)]) + digits
    if isinstance(value, float):
        return pickle.BINFLOAT + struct.pack(">d", value)
    raise InputError(f"a {type(value).__name__} has no place in a .pt file")


def _tensor(array: np.ndarray, arrays: list[np.ndarray]) -> bytes:
    array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    if array.dtype not in _NAMES:
        raise InputError(f"a tensor cannot hold {array.dtype}")
    arrays.append(array)
    strides = tuple(step // array.itemsize for step in array.strides)

    def name(module: str, of: str) -> bytes:
        return pickle.GLOBAL + f"{module}\n{of}\n".encode()

    storage = (
        pickle.MARK
        + _pickled("storage", [])
        + name("torch", _NAMES[array.dtype])
        + b"".join(_pickled(each, []) for each in (str(len(arrays) - 1), "cpu", array.size))
        + pickle.TUPLE
        + pickle.BINPERSID
    )
    rest = b"".join(_pickled(each, []) for each in (0, array.shape, strides, False))
    hooks = name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = pickle.MARK + storage + rest + hooks + pickle.TUPLE
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE
