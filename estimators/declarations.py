"""What a class of a plug-in declares: its name, its title, and the keyword-only arguments of its constructor."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def parameters(cls: type) -> dict[str, Any]:
    """Return the keyword-only constructor arguments of an estimator or a task and their defaults, in order."""
    return {argument.name: argument.default for argument in inspect.signature(cls).parameters.values()}


def is_abstract(cls: type) -> bool:
    """Return whether a class lacks methods.

    The members are read, since ABCMeta sets __abstractmethods__ only after __init_subclass__ has run.
    """
    return any(getattr(getattr(cls, key, None), "__isabstractmethod__", False) for key in dir(cls))


def check_name(cls: type, example: str) -> str:
    """Return the class attribute `name`. Raises TypeError unless it has lower-case letters, digits and underscores."""
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name.isascii() or not name.isidentifier() or name != name.lower():
        raise TypeError(f"{cls.__name__}: expected a class attribute name such as '{example}', got {name!r}.")
    return name


def check_constructor(cls: type, name: str) -> None:
    """Raise TypeError if the constructor has an argument that is not keyword-only or has no default.

    The same for `examples` of what is no argument, or of one with another default than None.
    """
    for argument in inspect.signature(cls).parameters.values():
        if argument.kind is not argument.KEYWORD_ONLY or argument.default is argument.empty:
            raise TypeError(
                f"{name}: expected keyword-only constructor arguments with defaults, got '{argument}'."
                f" Write __init__(self, *, {argument.name}=...)."
            )
    for key in getattr(cls, "examples", ()):
        if parameters(cls).get(key, ...) is not None:
            raise TypeError(f"{name}: expected examples for arguments whose default is None, got one for {key!r}.")


def example(cls: type[T], **params: Any) -> T:
    """Return an object with these arguments; those without a fitting default have the values of its `examples`."""
    construct: Callable[..., T] = cls
    return construct(**{**getattr(cls, "examples", {}), **params})


def title_of(cls: type, name: str) -> str:
    """Return the class's own `title`, or else the first line of its docstring."""
    return str(vars(cls).get("title") or (inspect.getdoc(cls) or name).partition("\n")[0].rstrip("."))
