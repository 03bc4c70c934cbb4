"""The form of a new run without its looks: which fields there are, what is typed into each, and the plan it makes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any

import msgspec

from llava_tui import faults
from llava_tui.plan import PIPELINES, Plan, PlanError, from_dict
from llava_tui.session.reader import safe_text
from llava_tui.tui.form_fields import FIELDS, LINE_END, SWITCH, Field
from llava_tui.tui.widgets.cells import plain

LONGEST = 4000
"""Characters of a value that are shown to be edited; a longer one is kept as it is."""
_DEFAULTS = Plan()


class Form:
    """What is typed into each field. A value that a plan brought stays what it was until its text is changed: a text
    of one line cannot show everything."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        """Filled with the defaults, and with ``values`` as a session's header keeps a plan; they may be anything."""
        self.texts: dict[str, str] = {}
        """By field; changed by :meth:`type`."""
        self._kept: dict[str, Any] = {}
        """Values whose text was never changed."""
        self.left_out: list[str] = []
        """Fields of ``values`` that no form has: a newer version's."""
        given = dict(values or {})
        for field in FIELDS:
            value = given.pop(field.name, getattr(_DEFAULTS, field.name))
            self.texts[field.name] = shown(field, value)
            self._kept[field.name] = value
        self.left_out = [plain(safe_text(str(name), 40)) for name in given]

    def type(self, name: str, text: str) -> bool:
        """Takes another text into a field; whether it is another."""
        if self.texts[name] == text:
            return False
        before = self._defaults()
        self.texts[name] = text
        self._kept.pop(name, None)
        after = self._defaults()
        for field in FIELDS if name == "pipeline" else ():
            default = getattr(after, field.name)
            if field.name in self._kept and self._kept[field.name] == getattr(before, field.name) != default:
                self._kept[field.name], self.texts[field.name] = default, shown(field, default)
        return True

    @property
    def pipeline(self) -> str:
        """Which fields there are depends on it."""
        return self.texts["pipeline"]

    def _defaults(self) -> Plan:
        return Plan(pipeline=self.pipeline).defaults()

    def fields(self) -> list[Field]:
        """Those that mean something for the pipeline and beside what else is typed. What says something already is
        shown wherever its pipeline has it."""
        ours = [field for field in FIELDS if self.pipeline in field.pipelines or self.pipeline not in PIPELINES]
        return [field for field in ours if field.when(self.texts) or self._says(field)]

    def _says(self, field: Field) -> bool:
        return self.texts[field.name] != shown(field, getattr(_DEFAULTS, field.name))

    def plan(self) -> Plan:
        """The plan that the form says. Raises :class:`PlanError`, which begins with the field's name."""
        values: dict[str, Any] = {}
        defaults = self._defaults()
        for field in self.fields():
            name = field.name
            value = self._kept[name] if name in self._kept else _value(field, self.texts[name])
            if value != getattr(defaults, name):
                values[name] = value
        try:
            return from_dict(values)
        except (TypeError, AttributeError, ValueError, RecursionError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(f"the plan cannot be: {safe_text(str(error), 200)}") from None

    def wrong(self, error: PlanError) -> str:
        """The field that an error is about; "" where it does not say."""
        said = str(error)
        heads = [*said.partition(":")[0].split(","), *said.rpartition("$.")[2].split("`")[:1]]
        words = [head.strip().split("[")[0] for head in heads]
        also = {"input": "inputs"}
        here = {field.name for field in self.fields()}
        return next((word for word in (also.get(word, word) for word in words) if word in here), "")


def shown(field: Field, value: Any) -> str:
    """A plan's value as it is typed: without what a terminal would obey, and in one line."""
    if isinstance(value, bool):
        text = SWITCH[not value]
    elif value is None:
        text = ""
    elif isinstance(value, (list, tuple)):
        texts = [_fault(one) if field.name == "faults" else str(one) for one in value]
        text = " ".join(map(shlex.quote, texts)) if field.kind == "words" else ",".join(texts)
    elif field.kind == "words":
        text = shlex.quote(str(value))
    elif isinstance(value, float):
        text = f"{value:.15g}"
    else:
        text = str(value)
    return plain(safe_text(text).replace("\n", LINE_END)[:LONGEST])


def _fault(value: Any) -> str:
    if isinstance(value, faults.Fault):
        return faults.as_text(value)
    try:
        return faults.as_text(msgspec.convert(value, faults.AnyFault))
    except (msgspec.ValidationError, TypeError):
        return str(value)


def _value(field: Field, text: str) -> Any:
    """What was typed, as :func:`~llava_tui.plan.from_dict` takes it."""
    default = getattr(_DEFAULTS, field.name)
    if field.name == "prompt":
        return text.replace(LINE_END, "\n")
    text = text.strip()
    if field.kind == "words":
        try:
            words = shlex.split(text)
        except ValueError:
            raise PlanError(f"{field.name}: a quotation mark is not closed") from None
        return [os.path.expanduser(word) for word in words] if field.name == "inputs" else words  # noqa: PTH111
    if not text:
        return default if field.name != "model" else ""
    if isinstance(default, bool):
        return text == SWITCH[0]
    if isinstance(default, float) or field.name == "time_limit_s":
        return _number(field.name, text, float)
    if isinstance(default, int):
        return _number(field.name, text, int)
    return text


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise PlanError(f"{name}: {text!r} is no {'whole ' if kind is int else ''}number") from None
