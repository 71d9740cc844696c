"""The text that names a method: `NAME` or `NAME:KEY=VALUE,KEY=VALUE`, and the table of all of them.

A method is added by a line in METHODS: its module is imported when it is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.assimilation import Assimilator
    from models.evaluation.method import Given, Method, States

METHODS = {
    "ours": "models.evaluation.ours:ours",
    "free": "models.evaluation.ours:unchanged",
    "background": "models.evaluation.ours:unchanged",
    "3dvar": "models.baselines.methods:three_d_var",
    "3dvar-from-prior": "models.baselines.methods:three_d_var_from_prior",
    "latent-3dvar": "models.baselines.methods:latent_three_d_var",
    "letkf": "models.baselines.methods:letkf",
}
"""Name -> "module:factory". A factory takes (assimilator, options) and returns a Method."""

Factory = Callable[["Assimilator", "Options"], "Method"]


class MethodError(ValueError):
    """A method is unknown, not installed, or has an option it does not know; the text says which."""


@dataclass(frozen=True)
class Options:
    """The KEY=VALUE part, as text."""

    method: str
    given: dict[str, str]

    def typed(self, **defaults: Any) -> dict[str, Any]:
        """Every option in the type of its default. Raises MethodError: an unknown option, or not of that type."""
        unknown = sorted(set(self.given) - set(defaults))
        if unknown:
            known = ", ".join(defaults) or "none"
            raise MethodError(f"{self.method} has no option {', '.join(unknown)}; it has: {known}")
        return {name: self._value(name, default) for name, default in defaults.items()}

    def _value(self, name: str, default: Any) -> Any:
        if name not in self.given:
            return default
        text = self.given[name]
        if isinstance(default, bool):
            if text not in ("true", "false"):
                raise MethodError(f"{self.method}: {name} is true or false, not {text!r}")
            return text == "true"
        try:
            return type(default)(text)
        except ValueError as error:
            raise MethodError(f"{self.method}: {name}={text!r} is not a {type(default).__name__}") from error


@dataclass(frozen=True)
class Named:
    """A method under the text that the user named it by, so that one with other options is another row."""

    name: str
    method: "Method"

    def analyse(self, given: "Given") -> "States":
        """What the method itself returns."""
        return self.method.analyse(given)


def named_alignment(text: str) -> str | None:
    """The alignment that a method's text names, if any."""
    pairs = (part.partition("=") for part in text.partition(":")[2].split(","))
    return next((value for key, _, value in pairs if key == "alignment" and value), None)


def unaligned(text: str) -> str:
    """The text of the same method without its alignment."""
    name, _, rest = text.partition(":")
    kept = [part for part in rest.split(",") if part and not part.startswith("alignment=")]
    return f"{name}:{','.join(kept)}" if kept else name


def create(text: str, assimilator: "Assimilator") -> "Method":
    """The method that `text` names; the text is its name in the results.

    Raises:
        MethodError: no such method or option, or its module is not there.
    """
    name, _, rest = text.partition(":")
    if name not in METHODS:
        raise MethodError(f"unknown method {name!r}; choose one of {', '.join(METHODS)}")
    pairs = [part.partition("=") for part in rest.split(",") if part]
    if any(not equals for _, equals, _ in pairs):
        raise MethodError(f"{text!r}: options are written NAME:KEY=VALUE,KEY=VALUE")
    module, _, function = METHODS[name].partition(":")
    try:
        factory: Factory = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise MethodError(f"{name} is not part of this installation ({error})") from error
    try:
        return Named(text, factory(assimilator, Options(name, {key: value for key, _, value in pairs})))
    except MethodError:
        raise
    except ValueError as error:
        raise MethodError(f"{text}: {error}") from error
