"""Run-time checks of a pandas program: by what a value is, never by its name.

Every attribute access and every call of a program comes here (``read_pandas.py`` rewrites it so). A
program's value is then always one of these: data of Python, NumPy or pandas; a function on the
lists; a lambda of its own; a listed method of such data. Nothing else can be reached, whatever
names are bound to what. What pandas calls by a name in text is compared with a list of its own.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from inspect import getattr_static
from typing import Any

MAX_DEPTH = 32
METHODS = (types.FunctionType, types.MethodDescriptorType)


class ListedNames:
    """What ``pd`` and ``np`` are to a program: the listed functions, nothing else of the
    modules.
    """

    def __init__(self, listed: dict[str, Any]) -> None:
        self.listed = listed


class ProgramGuard:
    """The allowed kinds of values and functions, and the four checks.

    ``lists`` is the module ``read_pandas.py``, which has the allowed words.
    """

    def __init__(self, lists: types.ModuleType) -> None:
        import builtins

        import numpy as np
        import pandas as pd
        from pandas.core.groupby import GroupBy
        from pandas.core.window.rolling import BaseWindow

        self.lists = lists
        # Methods that may be called but not passed as values, since their arguments are checked.
        self.guarded = {*lists.BY_NAME, "map", "query"}
        self.values = lists.ATTRIBUTES - self.guarded
        self.builtins = {name: getattr(builtins, name) for name in lists.BUILTINS}
        self.pd = ListedNames({name: getattr(pd, name) for name in lists.PANDAS})
        self.np = ListedNames({name: getattr(np, name) for name in lists.NUMPY})
        self.tables = (pd.DataFrame, pd.Series, pd.Index, np.ndarray, GroupBy, BaseWindow)
        self.data_types = (*self.tables, *_data_types(), *_accessors())
        # A program cannot define classes, so a class is checked only once.
        self.is_data_type: dict[type, bool] = {}
        spaces = (self.builtins, self.pd.listed, self.np.listed)
        # By identity: an object could claim to equal a listed function.
        self.functions = {
            id(one): name for space in spaces for name, one in space.items() if callable(one)
        }
        self.classes = [str, pd.Series, pd.DataFrame]
        attributes = (
            getattr_static(owner_class, name, None)
            for owner_class in self.classes
            for name in self.values
        )
        self.in_class = {id(one) for one in attributes if isinstance(one, METHODS)}
        self.pandas = {id(one): name for name, one in self.pd.listed.items()}
        self.space: dict[str, Any] = {}

    def namespace(self, frames: dict[str, Any]) -> dict[str, Any]:
        """The globals of a program on these tables."""
        # The names of the tables come first: they are untrusted, and must not hide the others.
        self.space = {
            "df": next(iter(frames.values())),
            **frames,
            "__builtins__": self.builtins,
            "pd": self.pd,
            "np": self.np,
            "_attribute": self.attribute,
            "_method": self.method,
            "_call": self.call,
            "_table": self.table,
        }
        return self.space

    def attribute(self, owner: Any, name: str, /) -> Any:
        """``owner.name``: data, or a listed function that may be passed to a call.

        A method that calls by a name in text is not a value: pandas would call it without the
        checks (``df.apply(pd.pivot_table, args=(…, 'to_csv'))``).
        """
        if name in self.guarded and isinstance(owner, ListedNames):
            raise self.lists.Refused(f"{name} may only be called, not passed as a value")
        return self.require_allowed(self._look_up(owner, name), name)

    def method(self, owner: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """``owner.name(…)``."""
        if isinstance(owner, ListedNames):
            return self.call(self._look_up(owner, name), *args, **kwargs)
        bound = self._look_up(owner, name)
        self._check_arguments(name, args, kwargs, 0)
        if name == "query":
            if len(args) != 1 or kwargs:
                raise self.lists.Refused("query takes one text")
            self.lists.check_query(args[0])
            # numexpr, where it is installed, would compile the text.
            kwargs = {"engine": "python"}
        return self.require_allowed(bound(*args, **kwargs), name)

    def call(self, owner: Any, /, *args: Any, **kwargs: Any) -> Any:
        """``owner(…)``."""
        if not self._may_be_called(owner):
            raise self.lists.Refused(f"calling a {type(owner).__name__} is refused")
        name = self.pandas.get(id(owner), "")
        self._check_arguments(name, args, kwargs, 1)
        return self.require_allowed(owner(*args, **kwargs), name)

    def table(self, owner: Any, /) -> Any:
        """The value assigned to the name of a table: an object of pandas or NumPy."""
        if not isinstance(owner, self.tables):
            raise self.lists.Refused("the name of a table keeps its meaning")
        return owner

    def require_allowed(self, value: Any, name: str) -> Any:
        """``value``, where it is of an allowed kind."""
        if not (self._is_data(value) or self._may_be_called(value)):
            raise self.lists.Refused(f"{name} gives a {type(value).__name__}, which is refused")
        return value

    def _look_up(self, owner: Any, name: str) -> Any:
        """The attribute, looked up only where it may be: on the class, or as a column."""
        if isinstance(owner, ListedNames):
            if name not in owner.listed:
                raise self.lists.Refused(f"{name} is refused")
            return owner.listed[name]
        if any(owner is owner_class for owner_class in self.classes):
            # Static: looking an attribute up runs properties and descriptors.
            attribute = getattr_static(owner, name, None)
            if id(attribute) not in self.in_class:
                raise self.lists.Refused(f"{name} is refused")
            return attribute
        if name.startswith("_") or not self._is_data(owner):
            raise self.lists.Refused(f"{name} of a {type(owner).__name__} is refused")
        if name not in self.lists.ATTRIBUTES and hasattr(type(owner), name):
            raise self.lists.Refused(f"the attribute {name} is refused")
        return getattr(owner, name)

    def _is_data(self, value: Any) -> bool:
        value_type = type(value)
        if value_type not in self.is_data_type:
            # By the type, never by ``isinstance``: an object may claim another class.
            self.is_data_type[value_type] = issubclass(value_type, self.data_types)
        return self.is_data_type[value_type]

    def _may_be_called(self, value: Any) -> bool:
        if id(value) in self.functions or id(value) in self.in_class:
            return True
        if type(value) is types.FunctionType:
            # A lambda of the program's own: only these have its globals.
            return value.__globals__ is self.space
        if type(value) in (types.MethodType, types.BuiltinMethodType):
            name = value.__name__
            return self._is_data(value.__self__) and name in self.values
        return False

    def _check_arguments(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], where: int
    ) -> None:
        """Check the arguments of a method (``where`` 0) or a function of pandas (1)."""
        for value in (*args, *kwargs.values()):
            self._check_value(value, MAX_DEPTH)
        if name:
            # Refuses keywords that choose what compiles or evaluates; the name of a result is none
            # of these.
            for key in self.lists.REFUSED_KEYWORDS & set(kwargs):
                if name not in self.lists.NAMED_AGGREGATIONS or not isinstance(kwargs[key], tuple):
                    raise self.lists.Refused(f"the keyword {key} is refused")
        if name == "map" and any(isinstance(value, str) for value in args):
            raise self.lists.Refused("map takes a function or a table of values")
        if name not in self.lists.BY_NAME:
            return
        position = self.lists.BY_NAME[name][where]
        for value in args[position : position + 1]:
            self._check_called(value, MAX_DEPTH)
        for key, value in kwargs.items():
            # ``aggfunc='mean'`` is called; so is ``total=('points', 'sum')``, and any other text.
            if key in self.lists.FUNCTION_KEYWORDS:
                self._check_called(value, MAX_DEPTH)
            elif name in self.lists.NAMED_AGGREGATIONS and isinstance(value, tuple):
                self._check_called(value[1:], MAX_DEPTH)
            elif (
                name in self.lists.NAMED_AGGREGATIONS
                and isinstance(value, str)
                and value not in self.lists.AXES
            ):
                self._check_called(value, MAX_DEPTH)

    def _check_value(self, value: Any, depth: int) -> None:
        """Check an argument: data, or something callable; in containers too."""
        if depth == 0:
            raise self.lists.Refused("arguments are nested too deeply")
        if not (self._is_data(value) or self._may_be_called(value)):
            raise self.lists.Refused(f"a {type(value).__name__} as an argument is refused")
        for inner in _contents(value):
            self._check_value(inner, depth - 1)

    def _check_called(self, value: Any, depth: int) -> None:
        """Check what pandas calls by itself: a listed name, an allowed function, or several."""
        if depth == 0:
            raise self.lists.Refused("arguments are nested too deeply")
        if isinstance(value, str):
            if value not in self.lists.CALLABLE_NAMES:
                raise self.lists.Refused(f"calling {value[:40]} by its name is refused")
        elif type(value) in (list, tuple, set, frozenset):
            for inner in value:
                self._check_called(inner, depth - 1)
        elif issubclass(type(value), dict):
            for inner in value.values():
                self._check_called(inner, depth - 1)
        elif value is not None and not self._may_be_called(value):
            raise self.lists.Refused(f"calling a {type(value).__name__} is refused")


def _contents(value: Any) -> Iterator[Any]:
    """The items of a Python container; data of pandas contains only what was checked before."""
    if type(value) in (list, tuple, set, frozenset):
        yield from value
    elif issubclass(type(value), dict):
        yield from value.values()


def _data_types() -> tuple[type, ...]:
    """Types that give no access to the outside: their listed attributes are data and methods on
    data.
    """
    import datetime

    import numpy as np
    import pandas as pd

    scalars: tuple[type, ...] = (str, bool, int, float, complex, type(None), type(...))
    containers: tuple[type, ...] = (list, tuple, dict, set, frozenset, range, slice)
    views: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
    iterators: tuple[type, ...] = (type(iter(())), type(iter([])), type(iter("")))
    lazy: tuple[type, ...] = (zip, enumerate, map, filter, types.GeneratorType)
    times: tuple[type, ...] = (datetime.date, datetime.time, datetime.timedelta)
    numbers: tuple[type, ...] = (np.generic, np.dtype)
    arrays = (pd.api.extensions.ExtensionArray, pd.api.extensions.ExtensionDtype)
    of_pandas = (type(pd.NaT), type(pd.NA), pd.Timestamp, pd.Timedelta, pd.Period, pd.Interval)
    python = (*scalars, *containers, *views, *iterators, *lazy, *times)
    return (*python, *numbers, *arrays, *of_pandas)


def _accessors() -> tuple[type, ...]:
    """``df.loc`` and its siblings, ``.str``, ``.dt``."""
    import pandas as pd
    from pandas.core.indexes.accessors import Properties

    frame = pd.DataFrame({"a": [1]})
    places = (type(frame.loc), type(frame.iloc), type(frame.at), type(frame.iat))
    texts = type(pd.Series(["a"]).str)
    days = type(pd.to_datetime(pd.Series(["2020-01-02"])).dt)
    return (*places, texts, days, Properties)
