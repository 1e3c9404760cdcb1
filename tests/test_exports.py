"""What `import labkit` offers is what it says."""

from __future__ import annotations

import importlib

import labkit


def test_the_offered_names_are_sorted_and_each_is_there():
    assert labkit.__all__ == sorted(set(labkit.__all__))
    for name in labkit.__all__:
        assert getattr(labkit, name) is not None, name


def test_everything_public_is_offered_and_nothing_else():
    public = {name for name in dir(labkit) if not name.startswith("_")}
    parts = {"annotations", "importlib", "Any", "cli", "errors", "kernel", "launch", "record", "workbench"}
    assert public - parts == set(labkit.__all__)


def test_a_name_is_the_same_thing_in_labkit_and_at_its_home():
    for name in labkit.__all__:
        found = getattr(labkit, name)
        home = getattr(found, "__module__", None)
        if home is not None:
            assert getattr(importlib.import_module(home), name) is found


def test_every_offered_function_and_class_is_documented():
    assert [name for name in labkit.__all__ if not (getattr(labkit, name).__doc__ or "").strip()] == []


def test_a_name_that_is_not_offered_is_an_attribute_error():
    try:
        labkit.nothing  # noqa: B018
    except AttributeError as error:
        assert str(error) == "module 'labkit' has no attribute 'nothing'"
    else:
        raise AssertionError("labkit.nothing was found")


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert labkit.__version__ == version("labkit")
