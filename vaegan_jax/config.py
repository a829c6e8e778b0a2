"""Configs as JSON and back, and what differs between two: frozen dataclasses and Linen modules of this package.

A dataclass or module becomes its name in vaegan_jax with its fields, a function its name in vaegan_jax or jax.nn.
Anything else becomes an "opaque" description that cannot be read back: the reader must give the config itself.
"""

import dataclasses
import functools
import hashlib
import importlib
import math
import numbers
import re
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import flax.linen as nn
import jax
import numpy as np


def to_json(value: Any) -> Any:
    """Plain JSON values for a config; tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if not kind.startswith("vaegan_jax."):
            fields = [f"{f.name}={_describe(getattr(value, f.name))}" for f in _fields(value)]
            return {"opaque": f"{kind}({', '.join(fields)})"}
        return {"type": kind, **{f.name: to_json(getattr(value, f.name)) for f in _fields(value)}}
    if isinstance(value, tuple | list):
        return [to_json(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value) and (name := _function_name(value)):
        return {"function": name}
    return {"opaque": _describe(value)}


def _describe(value: Any) -> str:
    """The same text in every process, so without addresses; a Python function's code counts, not its name alone."""
    if isinstance(value, functools.partial):
        given = [_describe(v) for v in value.args] + [f"{k}={_describe(v)}" for k, v in value.keywords.items()]
        return f"partial({', '.join([_describe(value.func), *given])})"
    if name := getattr(value, "__qualname__", ""):
        code = getattr(value, "__code__", None)
        digest = (
            "" if code is None else f" {hashlib.sha256(code.co_code + repr(code.co_names).encode()).hexdigest()[:8]}"
        )
        held = [_describe(cell.cell_contents) for cell in getattr(value, "__closure__", None) or ()]
        constants = [_describe(c) for c in (code.co_consts if code else ()) if not hasattr(c, "co_code")]
        inside = f" of {', '.join(held + constants)}" if held + constants else ""
        return f"{getattr(value, '__module__', '')}.{name}{digest}{inside}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def from_json(value: Any) -> Any:
    """The inverse of `to_json`. It makes dataclasses and modules of vaegan_jax alone, so a file cannot run other code.

    Raises:
        ValueError: an opaque value, a name that is not there, or that is of something else.
    """
    if isinstance(value, list):
        return tuple(from_json(v) for v in value)
    if not isinstance(value, dict):
        return value
    if "opaque" in value:
        raise ValueError(f"The stored config holds {value['opaque']}, which is not of vaegan_jax: load with config=...")
    if "function" in value:
        return _look_up(value["function"])
    if "type" not in value:
        raise ValueError(f"The stored config holds a dict of {sorted(value)}, without its type: it is damaged.")
    kind = _look_up(value["type"])
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ValueError(f"The stored config names {value['type']}, which is no config, net or optimiser.")
    fields = {name: from_json(v) for name, v in value.items() if name != "type"}
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"The stored config does not fit {value['type']} of this version: {error}.") from None


def with_defaults(value: Any) -> Any:
    """A stored config that has the fields which came later, at their defaults; what is opaque stays."""
    if isinstance(value, list):
        return [with_defaults(v) for v in value]
    if not isinstance(value, dict):
        return value
    known = {name: with_defaults(v) for name, v in value.items()}
    try:
        kind = _look_up(value["type"])
    except (KeyError, ValueError):
        return known
    if not dataclasses.is_dataclass(kind):
        return known
    return {name: to_json(default) for name, default in _defaults(kind).items()} | known


def _defaults(kind: Any) -> dict[str, Any]:
    found = {}
    for field in _fields(kind):
        if field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            found[field.name] = field.default
    return found


def check_fields(config: Any) -> None:
    """Refuses a value that is not of its field's Literal, int, float (finite) or tuple, each or None if that is said.

    Raises:
        ValueError: the field, its value and what is expected.
    """
    for field in dataclasses.fields(config):
        value, kind = getattr(config, field.name), field.type
        if get_origin(kind) in (UnionType, Union):
            if value is None:
                continue
            kind = next(k for k in get_args(kind) if k is not type(None))
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(f"{field.name} is {value!r}: give one of {', '.join(map(repr, get_args(kind)))}.")
        if kind is int and not _is(value, numbers.Integral):
            raise ValueError(f"{field.name} is {value!r}: give a whole number.")
        if kind is float and not (_is(value, numbers.Real) and math.isfinite(value)):
            raise ValueError(f"{field.name} is {value!r}: give a finite number.")
        if get_origin(kind) is tuple and not isinstance(value, tuple):
            raise ValueError(f"{field.name} is {value!r}: give a tuple.")


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """ "path: old -> new" for every leaf in which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = list(dict.fromkeys([*old, *new]))
        return [d for n in names for d in differences(old.get(n), new.get(n), f"{path}.{n}" if path else n)]
    return [] if old == new else [f"{path}: {old} -> {new}"]


def _fields(value: Any) -> list[dataclasses.Field]:
    kind = value if isinstance(value, type) else type(value)
    hidden = ("parent", "name") if issubclass(kind, nn.Module) else ()
    return [f for f in dataclasses.fields(value) if f.name not in hidden]


def _function_name(value: Any) -> str | None:
    name = getattr(value, "__name__", "")
    if getattr(jax.nn, name, None) is value:
        return f"jax.nn.{name}"
    if value is jax.numpy.tanh or value is nn.tanh:
        return "jax.nn.tanh"
    module = getattr(value, "__module__", "") or ""
    if module.startswith("vaegan_jax.") and getattr(importlib.import_module(module), name, None) is value:
        return f"{module}.{name}"
    return None


def _look_up(name: Any) -> Any:
    module, _, attribute = str(name).rpartition(".")
    if not (module == "jax.nn" or module.startswith("vaegan_jax.")):
        raise ValueError(f"The stored config names {name}: only names of vaegan_jax and jax.nn are read.")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        raise ValueError(f"The stored config names {name}, which this version does not have.") from None
