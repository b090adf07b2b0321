"""Every public name has an example, and the examples of the two rooms outside of the package's folder run, too."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

ROOMS = ("qpa_hf", "qpa_hf.circuit", "qpa_hf.heads", "qpa_hf.hub", "qpa_hf.model_cards", "qpa_hf.trainer_callbacks")
OUTSIDE = ("qpa_hf.model_cards", "qpa_hf.trainer_callbacks")  # pytest collects the doctests of all others
MODULES = [
    f"{room}.{module.name}"
    for room in OUTSIDE
    for module in pkgutil.iter_modules(importlib.import_module(room).__path__)
]


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_an_example(room):
    names = importlib.import_module(room).__all__
    public = {name: getattr(importlib.import_module(room), name) for name in names}
    public = {name: what for name, what in public.items() if inspect.isclass(what) or inspect.isfunction(what)}
    assert [name for name, what in public.items() if "Example:\n" not in (inspect.getdoc(what) or "")] == []


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
