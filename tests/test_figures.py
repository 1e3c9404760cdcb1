"""Raw data of figures that reads back to the same bits, and figures drawn from it."""

from __future__ import annotations

import io
import math

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.figure import Figure
from PIL import Image
from records import quick

from labkit.errors import RunProblem
from labkit.kernel import figures
from labkit.kernel.figures import load_data, picture, save_data
from labkit.kernel.style import DPI
from labkit.record.metrics import MetricsWriter

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
COLUMNS = {
    "f8": hnp.arrays(np.float64, 5, elements=st.floats()),
    "f4": hnp.arrays(np.float32, 5, elements=st.floats(width=32)),
    "f2": hnp.arrays(np.float16, 5, elements=st.floats(width=16)),
    "i8": hnp.arrays(np.int64, 5),
    "u8": hnp.arrays(np.uint64, 5),
    "b": hnp.arrays(np.bool_, 5),
    "text": st.lists(CELLS, min_size=5, max_size=5),
}


def same_bits(a, b):
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    both_nan = np.isnan(a) & np.isnan(b)
    return a.shape == b.shape and ((a.view(np.int64) == b.view(np.int64)) | both_nan).all()


@quick
@given(data=st.fixed_dictionaries(COLUMNS), as_frame=st.booleans())
def test_a_table_reads_back_to_the_same_values(tmp_path_factory, data, as_frame):
    folder = tmp_path_factory.mktemp("t")
    path = save_data(folder / "x", pd.DataFrame(data) if as_frame else data)
    assert path.suffix == ".csv"
    back = load_data(path)
    assert list(back.columns) == list(data)
    for name in ("f8", "f4", "f2"):
        assert back[name].dtype == np.float64 and same_bits(back[name], data[name])
    for name in ("i8", "u8", "b"):
        assert back[name].tolist() == data[name].tolist()
        assert back[name].dtype.kind == data[name].dtype.kind or name == "u8"
    expected = data["text"] if as_frame else np.asarray(data["text"]).tolist()
    assert back["text"].tolist() == expected


@pytest.mark.parametrize(
    "column",
    [
        ["001", "1e5", "NaN", "nan", "", "None", "inf", "True", ' "quoted", ', "two\nlines"],
        [math.nan] * 3,
        [math.inf, -math.inf, math.nan, -0.0, 5e-324, 0.1 + 0.2],
        [True, False],
        [2**63 - 1, -(2**63)],
        [1.0, 2.0],
    ],
)
def test_awkward_columns_keep_their_kind(tmp_path, column):
    back = load_data(save_data(tmp_path / "x", pd.DataFrame({'a,"b"\n': column, "n": range(len(column))})))
    assert list(back.columns) == ['a,"b"\n', "n"]
    values = back.iloc[:, 0].tolist()
    assert [type(value) for value in values] == [type(value) for value in column]
    assert repr(values) == repr(column)


@quick
@given(
    array=hnp.arrays(
        st.sampled_from(["f4", "f8", "i4", "u1", "?", "c8", "U3"]), hnp.array_shapes(min_dims=0, min_side=0)
    )
)
def test_arrays_of_any_shape_read_back_whole(tmp_path_factory, array):
    path = save_data(tmp_path_factory.mktemp("t") / "x", {"a": array, "b": np.zeros((2, 2))})
    assert path.suffix == ".npz"
    back = load_data(path)
    assert back["a"].dtype == array.dtype and back["a"].shape == array.shape
    assert back["a"].tobytes() == array.tobytes()


def test_tensors_lists_and_columns_of_pandas_own_types_are_taken(tmp_path):
    data = {"t": torch.tensor([1.5, 2], dtype=torch.bfloat16, requires_grad=True), "l": [1, 2]}
    assert load_data(save_data(tmp_path / "a", data)).to_dict("list") == {"t": [1.5, 2.0], "l": [1, 2]}
    frame = pd.DataFrame({"c": pd.Categorical(["x", "y"]), "i": pd.array([1, 2], dtype="Int64")})
    frame["f"] = pd.array([1.5, None], dtype="Float64")
    back = load_data(save_data(tmp_path / "b", frame))
    assert back["c"].tolist() == ["x", "y"] and back["i"].tolist() == [1, 2]
    assert back["f"][0] == 1.5 and math.isnan(back["f"][1])


def test_an_index_that_says_something_becomes_a_column(tmp_path):
    back = load_data(save_data(tmp_path / "x", pd.DataFrame({"n": [1, 2]}, index=pd.Index(["a", "b"], name="k"))))
    assert back.to_dict("list") == {"k": ["a", "b"], "n": [1, 2]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"a": [object()]}, "Python objects"),
        ({"a": ["x", None]}, "fill in the missing"),
        ({"a": [2**70]}, "Python objects"),
        ({"a": [[1, 2], [3]]}, "ragged"),
        ({"a": np.array(["2020-01-01"], dtype="datetime64[D]")}, "datetime64"),
        (pd.DataFrame({"a": ["x", None]}), "missing"),
        (pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}), "missing values"),
        (pd.DataFrame({"a": [1 + 2j]}), "no table can"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "different names"),
        (pd.DataFrame({"a": ["\ud800"]}), "no Unicode"),
        ({}, "an empty mapping"),
        ([1, 2], "not list"),
        ({"../a": np.zeros((2, 2))}, "cannot name an array"),
    ],
)
def test_what_cannot_be_written_whole_is_refused_and_nothing_is_written(tmp_path, data, said):
    with pytest.raises(RunProblem, match=said):
        save_data(tmp_path / "x", data)
    assert list(tmp_path.iterdir()) == []


def test_the_same_data_give_the_same_file_and_a_new_kind_replaces_the_old(tmp_path):
    data = {"a": np.arange(6).reshape(2, 3)}
    first = save_data(tmp_path / "x", data).read_bytes()
    assert save_data(tmp_path / "x", data).read_bytes() == first
    save_data(tmp_path / "x", {"a": [1]})
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_numpy_and_pandas_read_the_files_too(tmp_path):
    frame = pd.DataFrame({"a": [0.1 + 0.2, math.nan], "b": ["x", "y"]})
    pd.testing.assert_frame_equal(pd.read_csv(save_data(tmp_path / "t", frame)), frame)
    with np.load(save_data(tmp_path / "x", {"a": np.eye(2)})) as arrays:
        assert arrays["a"].tolist() == [[1, 0], [0, 1]]


def test_a_table_edited_by_hand_reads_as_what_it_looks_like(tmp_path):
    (tmp_path / "x.csv").write_text("n,x,name,yes\n1,1e-3,a,True\n2,nan,b,False\n")
    back = load_data(tmp_path / "x.csv")
    assert [back[name].dtype.kind for name in ("n", "x", "yes")] == ["i", "f", "b"]
    assert back["name"].tolist() == ["a", "b"]
    (tmp_path / "x.csv").write_text("n\n")
    assert load_data(tmp_path / "x.csv").shape == (0, 1)


def test_a_damaged_or_foreign_file_is_an_error_and_nothing_is_unpickled(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 half a file")
    np.savez(tmp_path / "y.npz", a=np.array([print], dtype=object))
    (tmp_path / "z.txt").write_text("")
    (tmp_path / "w.csv").write_text('"a","b"\n1\n')
    (tmp_path / "v.csv").write_bytes(b"\xff")
    for name, said in (
        ("x.npz", "damaged"),
        ("w.csv", "damaged"),
        ("v.csv", "damaged"),
        ("y.npz", "damaged"),
        ("z.txt", "neither .csv nor .npz"),
    ):
        with pytest.raises(RunProblem, match=said):
            load_data(tmp_path / name)


def draw_all():
    rng = np.random.default_rng(0)
    targets, scores = rng.integers(0, 3, 60), rng.normal(size=(60, 3))
    steps = np.arange(150)
    curves = pd.DataFrame({"step": steps, "loss": np.exp(-steps / 20) + 0.01})
    curves["val_accuracy"] = np.where(steps % 50 == 0, 0.9, np.nan)
    labels = ["a", "b", "c"]
    yield figures.learning_curves, curves
    yield figures.learning_curves, pd.DataFrame({"step": [1, 2], "accuracy": [math.nan, 0.5]})
    yield figures.confusion_matrix, figures.confusion_data(targets, scores.argmax(1), labels)
    yield figures.roc, figures.roc_data(targets, scores, labels)
    yield figures.class_distribution, figures.class_distribution_data(labels, train=targets, test=targets[:5])
    yield figures.image_grid, {"images": rng.random((13, 8, 8)), "titles": np.arange(13)}
    yield figures.image_grid, {"images": np.zeros((1, 3, 4, 4))}


@pytest.mark.slow
@pytest.mark.parametrize(("draw", "data"), list(draw_all()))
def test_each_figure_is_drawn_from_its_file_to_the_same_bytes_whatever_the_settings(tmp_path, draw, data):
    back = load_data(save_data(tmp_path / "x", data))
    settings = dict(mpl.rcParams)
    png = picture(back, draw)
    assert dict(mpl.rcParams) == settings
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black"}):
        assert picture(back, draw) == png
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG" and round(image.info["dpi"][0]) == DPI and "Software" not in image.info
    assert len(image.convert("RGB").getcolors(2**20)) > 1


def test_a_confusion_table_counts_each_pair():
    table = figures.confusion_data(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1]), ["cat", "dog"])
    assert table["count"].tolist() == [1, 1, 0, 2]
    assert table["target"].tolist() == ["cat", "cat", "dog", "dog"]
    assert table["predicted"].tolist() == ["cat", "dog"] * 2
    with pytest.raises(RunProblem, match="2 labels"):
        figures.confusion_data([0, 2], [0, 1], ["cat", "dog"])
    with pytest.raises(RunProblem, match="2 targets but 1"):
        figures.confusion_data([0, 1], [0], ["cat", "dog"])
    with pytest.raises(RunProblem, match="expected integers"):
        figures.confusion_data([0.5], [0], ["cat", "dog"])


def test_the_area_under_each_roc_curve_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    targets, scores = rng.integers(0, 4, 200), rng.normal(size=(200, 4)).round(1)
    table = figures.roc_data(targets, scores)
    for label, curve in table.groupby("label"):
        area = np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
        assert area == pytest.approx(roc_auc_score(targets == int(label), scores[:, int(label)]), abs=1e-12)


def test_classes_without_a_curve_are_left_out_and_two_classes_share_one():
    assert set(figures.roc_data([0, 1, 0], np.eye(3))["label"]) == {"0", "1"}
    assert set(figures.roc_data([0, 1, 0], np.eye(3)[:, :2])["label"]) == {"1"}
    for targets, scores, said in (
        ([0, 0], np.eye(2), "two classes"),
        ([0, 1], np.full((2, 2), np.nan), "NaN"),
        ([0, 1], np.eye(3), "do not fit"),
        ([0, 1], np.zeros(2), "expected"),
    ):
        with pytest.raises(RunProblem, match=said):
            figures.roc_data(targets, scores)


def test_learning_curves_come_from_the_runs_own_metrics(tmp_path):
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    for step in range(3):
        writer.log(step, {"loss": 1 / (step + 1)})
    writer.log(2, {"val_loss": 0.1 + 0.2, "loss": math.inf})
    writer.log(7, {"val_loss": 0.5})
    writer.close()
    table = figures.learning_data(tmp_path / "metrics.jsonl")
    assert table["step"].tolist() == [0, 1, 2, 7]
    assert table["loss"].tolist()[:3] == [1, 0.5, math.inf]  # the value logged last for a step
    assert same_bits(table["val_loss"], [math.nan, math.nan, 0.1 + 0.2, 0.5])
    with pytest.raises(RunProblem, match="nothing finite"):
        picture(pd.DataFrame({"step": [1], "loss": [math.nan]}), figures.learning_curves)


def test_the_epoch_is_no_curve():
    found = Figure()
    figures.learning_curves(pd.DataFrame({"step": [1, 2], "epoch": [1, 2], "accuracy": [0.5, 0.75]}), found)
    assert [line.get_label() for ax in found.axes for line in ax.lines] == ["accuracy"]


def test_pictures_that_are_no_pictures_are_refused():
    with pytest.raises(RunProblem, match="expected"):
        picture({"images": np.zeros((2, 5, 4, 4))}, figures.image_grid)


@pytest.mark.parametrize(("inches", "lines"), [(8.0, 1), (1.01, 2), (3.33, 1)])
def test_a_mark_stands_in_a_band_above_and_leaves_the_figure_as_it_is(inches, lines):
    def draw(data, figure):
        figure.subplots().plot(data["a"])

    plain, marked = (
        np.asarray(Image.open(io.BytesIO(picture({"a": [1, 2]}, draw, (inches, 1.0), mark))))
        for mark in ("", "debug run · stand-in data")
    )
    band, below = marked[: -len(plain)], marked[-len(plain) :]
    assert np.array_equal(below, plain)
    assert len(band) == int((0.17 * lines + 0.07) * DPI)
    text = (band != band[0, 0]).any(axis=2).any(axis=0)
    assert text.sum() > 50 and not text[[0, -1]].any()  # whole, between the edges
