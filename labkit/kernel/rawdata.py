"""The raw data of a figure as one file: a CSV table where it is one, else NumPy arrays.

A table reads back to the same values: floats to the same bits, NaN and infinities included. Text is quoted in
the file and numbers are not, so that "001" stays text. Integers come back as 64 bits, floats as float64,
which holds every smaller one exactly.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from labkit.errors import RunProblem
from labkit.record.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

Arrays = dict[str, np.ndarray]

TRUTH = {"True": True, "False": False}
FIELD = re.compile(r'("(?:[^"]|"")*"|[^",\r\n]*)(,|\r?\n|$)')
ARRAY_NAME = re.compile(r"[\w. -]*\w", re.ASCII)


def save_data(stem: Path, data: Any) -> Path:
    """Writes `data` to `<stem>.csv` or `<stem>.npz` in one step, and returns which.

    Args:
        stem: The file's path without its ending.
        data: A DataFrame, or a mapping from names to arrays, tensors or lists. Becomes a table when it is a
            DataFrame or all its arrays have one axis of the same length.

    Raises:
        RunProblem: Something cannot be written without loss: Python objects, dates, missing text.
    """
    stem = Path(stem)
    is_table, content = _content(data)
    table, arrays = (stem.with_name(stem.name + ending) for ending in (".csv", ".npz"))
    path, other = (table, arrays) if is_table else (arrays, table)
    write_atomic(path, content)
    other.unlink(missing_ok=True)  # of an earlier figure by this name
    return path


def as_read_back(data: Any) -> pd.DataFrame | Arrays:
    """Returns `data` as `load_data` returns what `save_data` wrote, without a file.

    Raises:
        RunProblem: As `save_data`.
    """
    is_table, content = _content(data)
    return _read_csv(content.decode("utf-8")) if is_table else _read_npz(io.BytesIO(content))


def _content(data: Any) -> tuple[bool, bytes]:
    """Returns whether data is a table, and what its file contains."""
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        columns = _columns(data)
    elif isinstance(data, Mapping) and data:
        columns = {str(name): _array(values, f"array {name!r}") for name, values in data.items()}
    else:
        raise RunProblem(f"a figure's data is a DataFrame or a mapping from names to arrays, not {_kind(data)}")
    is_table = isinstance(data, pd.DataFrame) or _is_table(columns)
    return is_table, _csv_bytes(columns) if is_table else _npz_bytes(columns)


def load_data(path: Path) -> pd.DataFrame | Arrays:
    """Returns what `save_data` wrote: a DataFrame from a .csv file, a dict of arrays from an .npz file.

    Raises:
        OSError: The file cannot be read.
        RunProblem: The file is neither, or is damaged.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file:
                return _read_npz(file)
        if path.suffix == ".csv":
            return _read_csv(path.read_bytes().decode("utf-8"))
    except (ValueError, csv.Error, zipfile.BadZipFile, EOFError) as problem:
        raise RunProblem(f"{path} is damaged: {problem}") from problem
    raise RunProblem(f"{path} is no raw data of a figure: its name ends in neither .csv nor .npz")


def _read_npz(file: IO[bytes]) -> Arrays:
    with zipfile.ZipFile(file) as archive:
        return {entry.removesuffix(".npy"): _read_array(archive, entry) for entry in archive.namelist()}


def _read_array(archive: zipfile.ZipFile, entry: str) -> np.ndarray:
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _array(values: Any, what: str) -> np.ndarray:
    """Returns `values` as an array of a type that both formats hold."""
    if hasattr(values, "detach"):  # a tensor, without loading torch for those who have none
        values = values.detach().cpu().resolve_conj().resolve_neg()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError as problem:
        raise RunProblem(f"{what} is ragged: give its parts as arrays of their own") from problem
    if array.dtype.kind == "O":
        array = _from_objects(array, what)
    if array.dtype.kind not in "biufcU":
        raise RunProblem(f"{what} holds {array.dtype}, which a figure's data cannot: make it numbers or text")
    return array


def _from_objects(array: np.ndarray, what: str) -> np.ndarray:
    items = array.ravel().tolist()
    if items and all(isinstance(item, str) for item in items):
        if any(item.endswith("\0") for item in items):
            raise RunProblem(f"{what} has text that ends in a NUL character, which arrays cut off")
        return array.astype(str)
    kinds = sorted({type(item).__name__ for item in items})
    advice = "fill in the missing ones first" if "str" in kinds else "make it numbers or text"
    raise RunProblem(f"{what} holds Python objects ({', '.join(kinds) or 'none'}): {advice}")


def _columns(frame: pd.DataFrame) -> Arrays:
    """Returns a DataFrame's columns, led by its index where that says more than the row's number."""
    import pandas as pd

    if not isinstance(frame.index, pd.RangeIndex) or frame.index.name is not None:
        frame = frame.reset_index()
    names = [str(name) for name in frame.columns]
    if not names or len(set(names)) < len(names):
        raise RunProblem(f"a figure's table needs columns with different names, not {names}")
    return {name: _array(_plain(frame.iloc[:, i], name), f"column {name!r}") for i, name in enumerate(names)}


def _plain(column: pd.Series, name: str) -> Any:
    """Returns a column without pandas' own types, of which NumPy knows nothing."""
    import pandas as pd

    if isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_float_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if column.isna().any():
        raise RunProblem(f"column {name!r} has missing values: fill them in, or make it floats, where NaN says so")
    return column.to_numpy(dtype=object) if pd.api.types.is_string_dtype(column.dtype) else column.to_numpy()


def _is_table(columns: Arrays) -> bool:
    shapes = {array.shape for array in columns.values()}
    return len(shapes) == 1 and len(next(iter(shapes))) == 1 and all(map(_fits_csv, columns.values()))


def _fits_csv(array: np.ndarray) -> bool:
    return array.dtype.kind in "biuU" or (array.dtype.kind == "f" and array.dtype.itemsize <= 8)


def _csv_bytes(columns: Arrays) -> bytes:
    for name, array in columns.items():
        if not _fits_csv(array):
            raise RunProblem(f"column {name!r} holds {array.dtype}, which no table can: give a mapping of arrays")
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(columns)
    # Python's own floats: their text is the shortest that reads back to the same bits.
    writer.writerows(zip(*(array.tolist() for array in map(_widened, columns.values())), strict=True))
    try:
        return out.getvalue().encode("utf-8")
    except UnicodeEncodeError as problem:
        raise RunProblem(f"a figure's data holds text that is no Unicode: {problem}") from problem


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _read_csv(text: str) -> pd.DataFrame:
    """Returns a table, read here because the readers of pandas differ in floats and cannot see quotes."""
    import pandas as pd

    names, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    if any(len(row) != len(names) for row in rows):
        raise ValueError("its lines have different numbers of fields")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    quoted = _quoted(text)
    return pd.DataFrame(
        {
            name: _typed(list(fields), is_text)
            for name, fields, is_text in zip(names, columns, quoted or [False] * len(names), strict=True)
        }
    )


def _quoted(text: str) -> list[bool]:
    """Says for each field of the first record after the names whether it stands in quotes."""
    records: list[list[bool]] = [[], []]
    start = 0
    for record in records:
        while start < len(text) and (match := FIELD.match(text, start)):
            record.append(match[1].startswith('"'))
            start = match.end()
            if match[2] != ",":
                break
    return records[1]


def _typed(fields: list[str], is_text: bool) -> Any:
    """Returns a column's values as truth values, integers or floats, in this order, or as text."""
    if is_text:
        return fields
    if fields and set(fields) <= TRUTH.keys():
        return [TRUTH[field] for field in fields]
    for kind, number in ((int, np.int64), (int, np.uint64), (float, np.float64)):
        try:
            return np.array([kind(field) for field in fields], dtype=number if fields else np.float64)
        except (ValueError, OverflowError):
            continue
    return fields  # a file edited by hand, whose text has lost its quotes


def _npz_bytes(arrays: Arrays) -> bytes:
    """Returns the arrays as an .npz file whose bytes depend on nothing else: no times, no pickles."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            if not ARRAY_NAME.fullmatch(name) or name.endswith(".npy"):
                raise RunProblem(f"{name!r} cannot name an array: use letters, digits, spaces, '_', '-' and '.'")
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return out.getvalue()


def _kind(data: Any) -> str:
    return "an empty mapping" if isinstance(data, Mapping) else type(data).__name__
