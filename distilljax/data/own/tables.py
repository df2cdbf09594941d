"""Tables with an image a row: CSV, Parquet and Arrow files, Hugging Face sets on disk.

The image of a row is its bytes (as Hugging Face keeps them), the path of a file beside the
table, or its pixels, in one column or in a column each.
"""

import json
import math
import pathlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distilljax.data.own.folders import ALL, SPLITS, Found, Items, split_folders
from distilljax.data.own.images import Encoded, Images, require
from distilljax.data.own.request import Request, normal
from distilljax.types import InputError

ENDINGS = (".csv", ".tsv", ".parquet", ".arrow")
_PATHS = ("image", "img", "path", "file", "file_name", "filename", "image_path")
_LABELS = ("label", "labels", "class", "target", "y")
_PIXELS = "pixels"  # numbers in one text, as FER2013 has them


class _Columns(NamedTuple):
    """The columns of a table that are read."""

    image: str | None  # None where each pixel has a column
    pixels: list[str]
    label: str


def files_of(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the tables of a folder by split; none where it holds none.

    The split is the folder that a table lies in (`train/data-00000.arrow`), or stands in
    its name (`train-00000-of-00001.parquet`).

    >>> import pathlib
    >>> pathlib.Path("table").mkdir(exist_ok=True)
    >>> pathlib.Path("table/train-00000-of-00001.parquet").touch()
    >>> list(tables.files_of(pathlib.Path("table")))
    ['train']
    """
    found: dict[str, list[pathlib.Path]] = {}
    for split, place in split_folders(folder).items():
        if files := _tables(place):
            found[split] = files
    if found:
        return found
    for place in (folder, folder / "data"):
        for file in _tables(place):
            words = [normal(word) for word in re.split(r"[^A-Za-z]+", file.stem)]
            split = next((word for word in words if word in SPLITS), ALL)
            found.setdefault(split, []).append(file)
        if found:
            break
    return found


def _tables(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in ENDINGS and path.name[0] != "."
    )


def read(files: Mapping[str, Sequence[pathlib.Path]], request: Request) -> Found:
    """Reads tables, by split.

    >>> import pathlib
    >>> from distilljax.data.own import request
    >>> rows = ["label,pixels", "0,1 2 3 4", "1,5 6 7 8"]
    >>> _ = pathlib.Path("grey.csv").write_text(chr(10).join(rows))
    >>> asked = request.parse("grey.csv")
    >>> found = tables.read({"train": [pathlib.Path("grey.csv")]}, asked)
    >>> found.splits["train"].labels.tolist()
    [0, 1]

    Raises:
      InputError: pyarrow or a column is absent; several columns might be meant; a damaged
        file; a row without image or label.
    """
    require("pyarrow", "tables")
    # Columns and classes are those of train.
    files = dict(sorted(files.items(), key=lambda one: one[0] != "train"))
    tables = {
        split: _joined([_table(path) for path in paths], paths)
        for split, paths in files.items()
    }
    first = next(iter(files.values()))[0]
    kind = first.suffix.lower().lstrip(".")
    if list(tables) == [ALL]:
        tables = _divided(tables[ALL], request, first)
    elif request.split:
        raise InputError(
            f"{request.path}: split={request.split} has no meaning, as its files are "
            f"{', '.join(tables)} already"
        )
    notes = list[str]()
    columns = _columns(next(iter(tables.values())), request, first)
    for split, table in tables.items():
        _check_columns(table, columns, f"{request.path}: {split}")
    named = {split: _names(table).get(columns.label) for split, table in tables.items()}
    values = {
        split: _values(table, columns.label, f"{request.path}: {split}")
        for split, table in tables.items()
    }
    labels, names = _numbered(values, named, request, notes)
    splits = {
        split: Items(_images(table, columns, first.parent, request), labels[split])
        for split, table in tables.items()
    }
    if columns.pixels:
        side = math.isqrt(len(columns.pixels))
        notes.append(
            f"{len(columns.pixels)} columns are the pixels of {side} x {side} grey images, "
            "row by row"
        )
    return Found(splits, names, kind, notes)


def _table(path: pathlib.Path) -> Any:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.ipc
    import pyarrow.parquet

    ending = path.suffix.lower()
    try:
        if ending == ".parquet":
            return pa.parquet.read_table(path)
        if ending == ".arrow":
            with pa.memory_map(str(path)) as source:
                try:
                    return pa.ipc.open_stream(source).read_all()
                except pa.ArrowInvalid:
                    source.seek(0)
                    return pa.ipc.open_file(source).read_all()
        options = pa.csv.ParseOptions(delimiter="\t" if ending == ".tsv" else ",")
        return pa.csv.read_csv(path, parse_options=options)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        (text, *_) = str(error).splitlines() or [type(error).__name__]
        raise InputError(
            f"{path}: not a readable table ({text[:160]}); it may be truncated"
        ) from None


def _joined(tables: Sequence[Any], paths: Sequence[pathlib.Path]) -> Any:
    import pyarrow as pa

    for table, path in zip(tables, paths, strict=True):
        if twice := [n for n, num in Counter(table.column_names).items() if num > 1]:
            raise InputError(
                f"{path} has several columns {twice[0]!r}; give it a header row, with "
                "another name for each column"
            )
        if table.column_names != tables[0].column_names:
            raise InputError(
                f"{path} has other columns than {paths[0]} ({_listed(table)}); name the "
                "one table to read"
            )
        if _names(table) != _names(tables[0]):
            raise InputError(
                f"{path} names its classes otherwise than {paths[0]}; name the one "
                "table to read"
            )
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException:
        raise InputError(
            f"{paths[0]} and {paths[-1]} have other types of columns"
        ) from None


def _listed(table: Any) -> str:
    names = list(table.column_names)
    return ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if names[12:] else "")


def _divided(table: Any, request: Request, path: pathlib.Path) -> dict[str, Any]:
    """Divides a table by its column of splits, if it has one."""
    import pyarrow as pa
    import pyarrow.compute

    name = request.split or ("split" if "split" in table.column_names else None)
    if name is None:
        return {ALL: table}
    if name not in table.column_names:
        raise InputError(f"{path} has no column {name!r}; it has {_listed(table)}")
    found: dict[str, list[Any]] = {}
    for value in pa.compute.unique(table[name]).to_pylist():
        if value is None:
            raise InputError(f"{path}: a row has no {name}; fill it in, or remove the row")
        rows = table.filter(pa.compute.equal(table[name], value))
        found.setdefault(normal(str(value)), []).append(rows)
    return {split: pa.concat_tables(spelt) for split, spelt in found.items()}


def _hugging_face(table: Any) -> dict[str, Any]:
    """Returns the features that Hugging Face writes beside a table, by column."""
    held = (table.schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(held)["info"]["features"] if held else {}
    except (ValueError, KeyError, TypeError):
        return {}
    return {n: f for n, f in features.items() if isinstance(f, dict)}


def _names(table: Any) -> dict[str, list[str]]:
    """Returns the names of classes that Hugging Face writes beside a table, by column."""
    held = {name: f.get("names") for name, f in _hugging_face(table).items()}
    return {n: [*map(str, names)] for n, names in held.items() if isinstance(names, list)}


def _check_columns(table: Any, columns: _Columns, where: str) -> None:
    """Refuses a split that lacks a column which is read."""
    held = set(table.column_names)
    for name in (columns.label, *filter(None, [columns.image]), *columns.pixels):
        if name not in held:
            raise InputError(
                f"{where} has no column {name!r}; it has {_listed(table)}; add it, or name "
                "the one table to read"
            )


def _columns(table: Any, request: Request, path: pathlib.Path) -> _Columns:
    """Returns the columns of image and label: those asked for, or the only ones."""
    for asked in filter(None, (request.image, request.label)):
        if asked not in table.column_names:
            raise InputError(f"{path} has no column {asked!r}; it has {_listed(table)}")
    described = _hugging_face(table)
    kinds = {n: f.get("_type") for n, f in described.items() if n in table.column_names}
    labels = [n for n, kind in kinds.items() if kind == "ClassLabel"]
    labels = labels or [n for n in table.column_names if n.lower() in _LABELS]
    label = request.label or _only(labels, "label", path, table)
    images = [n for n, kind in kinds.items() if kind == "Image"]
    images = images or [n for n in table.column_names if n != label and _encoded(table, n)]
    images = images or [n for n in table.column_names if n.lower() in (*_PATHS, _PIXELS)]
    if request.image or images:
        return _Columns(request.image or _only(images, "image", path, table), [], label)
    pixels = [n for n in table.column_names if n not in (label, request.split or "split")]
    if len(pixels) >= 64 and math.isqrt(len(pixels)) ** 2 == len(pixels):
        return _Columns(None, pixels, label)
    return _Columns(_only(images, "image", path, table), [], label)


def _encoded(table: Any, name: str) -> bool:
    """Whether a column holds the bytes of images, as Hugging Face has them."""
    import pyarrow as pa

    kind = table.schema.field(name).type
    if pa.types.is_struct(kind):
        return "bytes" in [kind.field(i).name for i in range(kind.num_fields)]
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _only(found: Sequence[str], what: str, path: pathlib.Path, table: Any) -> str:
    if len(found) == 1:
        return found[0]
    which = f"several might be ({', '.join(found)})" if found else "none has a usual name"
    raise InputError(
        f"{path}: which column is the {what}? {which}; add ,{what}=NAME behind the path. "
        f"The columns are {_listed(table)}"
    )


def _values(table: Any, name: str, where: str) -> list[Any]:
    values = table[name].to_pylist()
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float) and not value.is_integer()):
            raise InputError(
                f"{where}: row {row + 1} has the {name} {value!r}; give each row a class"
            )
        if not isinstance(value, int | str | float):
            raise InputError(
                f"{where}: {name} holds {type(value).__name__} values; a class is a "
                "text or a number"
            )
    return [int(value) if isinstance(value, float) else value for value in values]


def _numbered(
    values: Mapping[str, Sequence[Any]],
    named: Mapping[str, Sequence[str] | None],
    request: Request,
    notes: list[str],
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns labels 0..k-1 and the names of the classes, those that splits state."""
    every = {value for split in values.values() for value in split}
    numeric = not any(isinstance(value, str) for value in every)
    names = next(filter(None, named.values()), None)
    if names and numeric:
        values = {
            split: _by_name(one, named[split] or names, names, f"{request.path}: {split}")
            for split, one in values.items()
        }
        order: list[Any] = list(range(len(names)))
    elif numeric:
        order = sorted(every)
        if order != list(range(len(order))):
            notes.append(f"the labels {order[0]} to {order[-1]} are {len(order)} classes")
        names = [str(value) for value in order]
    else:
        order = sorted(map(str, every))
        names = order
        values = {split: [str(v) for v in one] for split, one in values.items()}
    place: dict[Any, int] = {value: number for number, value in enumerate(order)}
    labels = {s: np.array([place[v] for v in one], np.int64) for s, one in values.items()}
    return labels, tuple(names)


def _by_name(
    values: Sequence[int], own: Sequence[str], names: Sequence[str], where: str
) -> list[int]:
    """Returns the places in `names` of what class numbers mean in `own`."""
    if sorted(own) != sorted(names):
        raise InputError(
            f"{where} names other classes ({', '.join(own[:10])}) than another split "
            f"({', '.join(names[:10])}); give both the same"
        )
    for value in values:
        if not 0 <= value < len(own):
            raise InputError(
                f"{where} names {len(own)} classes and has a label {value}; give each "
                f"row a class 0..{len(own) - 1}, or remove it"
            )
    place = {name: number for number, name in enumerate(names)}
    return [place[own[value]] for value in values]


def _images(
    table: Any, columns: _Columns, folder: pathlib.Path, request: Request
) -> Images:
    where = request.path
    if columns.image is None:
        return _pixels([table[n].to_numpy() for n in columns.pixels], where)
    cells = table[columns.image].to_pylist()
    if columns.image.lower() == _PIXELS:
        return _spelt_pixels(cells, where)
    return [
        _cell(cell, f"{where}: {columns.image} of row {row}", folder)
        for row, cell in enumerate(cells, 1)
    ]


def _cell(cell: Any, where: str, folder: pathlib.Path) -> Encoded:
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes) and cell:
        return Encoded(where, cell)
    if isinstance(cell, str) and cell:
        path = folder / pathlib.Path(cell).expanduser()
        if not path.is_file():
            raise InputError(f"{where} is {cell!r}, and {path} is no file")
        return Encoded(str(path), path)
    raise InputError(
        f"{where} is {type(cell).__name__}; an image is its bytes or the path of its file"
    )


def _pixels(columns: Sequence[np.ndarray], where: str) -> np.ndarray:
    try:
        rows = np.stack(columns, axis=1)
    except (ValueError, TypeError):
        raise InputError(f"{where}: a pixel is no number") from None
    side = math.isqrt(rows.shape[1])
    return _bytes(rows, where).reshape(len(rows), side, side, 1)


def _spelt_pixels(cells: Sequence[Any], where: str) -> np.ndarray:
    rows: list[np.ndarray] = []
    for number, cell in enumerate(cells, 1):
        try:
            row = np.array(str(cell).split(), np.float64)
        except ValueError:
            row = np.zeros(0)
        side = math.isqrt(row.size)
        if not row.size or side * side != row.size or (rows and row.size != rows[0].size):
            raise InputError(
                f"{where}: {_PIXELS} of row {number} are {row.size} numbers; a square of "
                "numbers, the same in each row, is read"
            )
        rows.append(row)
    side = math.isqrt(rows[0].size)
    return _bytes(np.stack(rows), where).reshape(len(rows), side, side, 1)


def _bytes(rows: np.ndarray, where: str) -> np.ndarray:
    if rows.dtype.kind not in "iuf" or not np.isfinite(rows).all():
        raise InputError(f"{where}: a pixel is no number; fill it in, or remove the row")
    if rows.min() < 0 or rows.max() > 255 or (rows != np.round(rows)).any():
        raise InputError(
            f"{where}: pixels span {rows.min():g}..{rows.max():g}; whole numbers from 0 to "
            "255 are read"
        )
    return rows.astype(np.uint8)
