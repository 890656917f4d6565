"""Configurations judged by tables: which settings a class has, what they may be, and which of them change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from sdbuild.checkpoints.account.entry import Entry, Kind, Use

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """What a setting's value may be.

    Attributes:
        name: for people.
        fits: whether a value is of this form.
    """

    name: str
    fits: Callable[[Any], bool]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= _LARGEST_NUMBER  # which neither NaN nor an infinity is


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and len(value) <= _LONGEST_LIST and all(map(fits, value))


# Generous to every published network, and far below what a size in memory or a product of sizes could not bear.
_LARGEST_COUNT = 2**24
_LARGEST_INTEGER = 2**31
_LARGEST_NUMBER = 1e6
_LONGEST_LIST = 10_000
_LONGEST_TEXT = 1000

INTEGER = Form("a whole number", lambda value: _is_integer(value) and abs(value) < _LARGEST_INTEGER)
COUNT = Form("a whole number above 0", lambda value: _is_integer(value) and 0 < value <= _LARGEST_COUNT)
INDEX = Form("a whole number from 0", lambda value: _is_integer(value) and 0 <= value <= _LARGEST_COUNT)
NUMBER = Form("a number", _is_number)
POSITIVE = Form("a number above 0", lambda value: _is_number(value) and value > 0)
SHARE = Form("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
BOOLEAN = Form("true or false", lambda value: isinstance(value, bool))
TEXT = Form("text", lambda value: isinstance(value, str) and len(value) <= _LONGEST_TEXT)
COUNTS = Form("a list of whole numbers above 0", _list_of(COUNT.fits))
INDICES = Form("a list of whole numbers from 0", _list_of(INDEX.fits))
NUMBERS = Form("a list of numbers", _list_of(_is_number))
TEXTS = Form("a list of names", _list_of(TEXT.fits))
COUNT_OR_COUNTS = Form(
    "a whole number above 0, or a list of them", lambda value: COUNT.fits(value) or COUNTS.fits(value)
)
DEPTHS = Form(
    "a whole number, or a list of them, or of lists of them",
    lambda value: INDEX.fits(value) or _list_of(lambda part: INDEX.fits(part) or INDICES.fits(part))(value),
)
BOOLEAN_OR_BOOLEANS = Form(
    "true or false, or a list of them", lambda value: isinstance(value, bool) or _list_of(BOOLEAN.fits)(value)
)
ANY = Form("anything", lambda value: True)


@dataclass(frozen=True)
class Setting:
    """What is known of one setting.

    Attributes:
        form: what its value may be.
        default: what holds where a configuration leaves it out.
        values: what its value, or each member of a list, must be one of; None where any will do.
        optional: whether null is a value like others, though the default is none.
        harmless: why its value changes nothing; empty for a setting that is used.
        unsupported: what another value than `values` would be, for the refusal.
    """

    form: Form
    default: Any = None
    values: tuple[Any, ...] | None = None
    optional: bool = False
    harmless: str = ""
    unsupported: str = ""


@dataclass(frozen=True)
class Class:
    """What is known of a class's configuration.

    Attributes:
        name: the class's.
        settings: by name, every one that the library's class has.
        required: settings without which nothing can be built, whatever the library's default is.
    """

    name: str
    settings: Mapping[str, Setting]
    required: tuple[str, ...] = field(default=())


# What libraries write of themselves, never of the network.
ABOUT = {
    "_class_name": "names the class, by which the file was recognised",
    "_diffusers_version": "the version that wrote the file",
    "_name_or_path": "where the file was loaded from",
    "_use_default_values": "which settings were defaults when the file was written",
    "_commit_hash": "the commit that the file was loaded from",
    "transformers_version": "the version that wrote the file",
    "architectures": "names the class, by which the file was recognised",
    "model_type": "names the class, by which the file was recognised",
    "torch_dtype": "the type in which the weights were saved, which they say themselves",
    "dtype": "the type in which the weights were saved, which they say themselves",
}


def judge(place: str, config: Config, known: Class) -> Iterator[Entry]:
    """What becomes of each setting of a configuration, and of those that it leaves out and must not."""
    for name, value in config.items():
        yield Entry(place, Kind.SETTING, name, *_verdict(name, value, known))
    for name in known.required:
        if name not in config:
            reason = f"is missing, and {known.name}'s default is no published model's; take the file of the same model"
            yield Entry(place, Kind.SETTING, name, Use.REFUSED, reason)


def with_defaults(config: Config, known: Class) -> dict[str, Any]:
    """The configuration with every setting written out, as the library's class would have it."""
    stated = {
        name: value
        for name, value in config.items()
        if value is not None or (name in known.settings and known.settings[name].optional)
    }
    return {name: setting.default for name, setting in known.settings.items()} | stated


def _verdict(name: str, value: Any, known: Class) -> tuple[Use, str]:
    if name in ABOUT:
        return Use.HARMLESS, ABOUT[name]
    setting = known.settings.get(name)
    if setting is None:
        close = get_close_matches(name, known.settings, n=1, cutoff=0.8)
        hint = f"; did it mean `{close[0]}`?" if close else ""
        return Use.WARNED, f"{known.name} has no such setting, and like the library nothing here reads it{hint}"
    if setting.harmless:
        return Use.HARMLESS, setting.harmless
    if value is None and (setting.optional or setting.default is None):
        return Use.USED, ""
    if not setting.form.fits(value):
        return Use.REFUSED, f"is {value!r}, and must be {setting.form.name}"
    if setting.values is not None:
        members = value if isinstance(value, list | tuple) else [value]
        wrong = [member for member in members if member not in setting.values]
        if wrong:
            listed = ", ".join(repr(member) for member in setting.values)
            what = f" ({setting.unsupported})" if setting.unsupported else ""
            return Use.REFUSED, f"is {wrong[0]!r}{what}; supported: {listed}"
    return Use.USED, ""
