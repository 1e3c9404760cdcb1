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
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.errors import RunProblem
from labkit.record.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

Arrays = dict[str, np.ndarray]

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
    import pandas as pd

    stem = Path(stem)
    if isinstance(data, pd.DataFrame):
        columns = _columns(data)
    elif isinstance(data, Mapping) and data:
        columns = {str(name): _array(values, f"array {name!r}") for name, values in data.items()}
    else:
        raise RunProblem(
            f"a figure's data is a DataFrame or a mapping from names to arrays, not {_kind(data)}"
        )
    is_table = isinstance(data, pd.DataFrame) or _is_table(columns)
    table, arrays = (stem.with_name(stem.name + ending) for ending in (".csv", ".npz"))
    path, other = (table, arrays) if is_table else (arrays, table)
    write_atomic(path, _csv_bytes(columns) if is_table else _npz_bytes(columns))
    other.unlink(missing_ok=True)  # of an earlier figure by this name
    return path


def load_data(path: Path) -> pd.DataFrame | Arrays:
    """Returns what `save_data` wrote: a DataFrame from a .csv file, a dict of arrays from an .npz file.

    Raises:
        OSError: The file cannot be read.
        RunProblem: The file is neither, or is damaged.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        if path.suffix == ".csv":
            return _read_csv(path.read_bytes().decode("utf-8"))
    except (ValueError, zipfile.BadZipFile, EOFError) as problem:
        raise RunProblem(f"{path} is damaged: {problem}") from problem
    raise RunProblem(f"{path} is no raw data of a figure: its name ends in neither .csv nor .npz")


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
        raise RunProblem(
            f"column {name!r} has missing values: fill them in, or make it floats, where NaN says so"
        )
    return column.to_numpy(dtype=object) if pd.api.types.is_string_dtype(column.dtype) else column.to_numpy()


def _is_table(columns: Arrays) -> bool:
    shapes = {array.shape for array in columns.values()}
    return len(shapes) == 1 and len(next(iter(shapes))) == 1 and all(map(_fits_csv, columns.values()))


def _fits_csv(array: np.ndarray) -> bool:
    return array.dtype.kind in "biuU" or (array.dtype.kind == "f" and array.dtype.itemsize <= 8)


def _csv_bytes(columns: Arrays) -> bytes:
    for name, array in columns.items():
        if not _fits_csv(array):
            raise RunProblem(
                f"column {name!r} holds {array.dtype}, which no table can: give a mapping of arrays"
            )
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
    import pandas as pd

    names, end = _record(text, 0)
    first, _ = _record(text, end)
    names = [_unquoted(name) for name in names]
    quoted = {name for name, field in zip(names, first, strict=False) if field.startswith('"')}
    frame = pd.read_csv(
        io.StringIO(text),
        dtype=dict.fromkeys(quoted, str),
        keep_default_na=False,
        na_values={name: ["nan"] for name in names if name not in quoted},
        float_precision="round_trip",
        index_col=False,
    )
    return frame if len(frame) else frame.astype(float)


def _record(text: str, start: int) -> tuple[list[str], int]:
    """Returns the fields of the record that begins at `start`, quotes and all, and where the next begins."""
    fields = []
    while match := FIELD.match(text, start):
        fields.append(match[1])
        start = match.end()
        if match[2] != ",":
            break
    return fields, start


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if field.startswith('"') else field


def _npz_bytes(arrays: Arrays) -> bytes:
    """Returns the arrays as an .npz file whose bytes depend on nothing else: no times, no pickles."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            if not ARRAY_NAME.fullmatch(name) or name.endswith(".npy"):
                raise RunProblem(
                    f"{name!r} cannot name an array: use letters, digits, spaces, '_', '-' and '.'"
                )
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return out.getvalue()


def _kind(data: Any) -> str:
    return "an empty mapping" if isinstance(data, Mapping) else type(data).__name__
