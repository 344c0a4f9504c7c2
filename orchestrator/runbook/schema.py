"""Decides what shape an estate and a runbook must have; must never judge what they mean.

The pydantic models and the JSON Schemas are built from the model's dataclasses (``shape``), so a new
field or component type needs no line here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, WithJsonSchema, create_model
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError

from orchestrator.core.model import DoneWhen, Estate, Runbook
from orchestrator.core.values import DurationUnit, PlainMark, Reference, SecretMark, SizeUnit, TemplateMark
from orchestrator.runbook import shape, units

API_VERSION = "continuity/v1"
KINDS: Mapping[str, type[Any]] = {"Estate": Estate, "Runbook": Runbook}


def _checked(parse: Callable[[object], Any]) -> Callable[[object], Any]:
    def check(written: object) -> Any:
        try:
            return parse(written)
        except units.BadUnit as error:
            raise PydanticCustomError(
                "bad_unit", "{message}", {"message": error.message, "hint": error.hint}
            ) from None

    return check


_Text = Annotated[str, Strict()]
_Whole = Annotated[int, Strict()]
_Truth = Annotated[bool, Strict()]
_NameKey = Annotated[str, Field(pattern=units.NAME_PATTERN)]
_Duration = Annotated[
    int,
    BeforeValidator(_checked(units.parse_duration)),
    WithJsonSchema({"type": "string", "pattern": units.DURATION_PATTERN, "examples": ["30s", "15m"]}),
]
_Size = Annotated[
    int,
    BeforeValidator(_checked(units.parse_size)),
    WithJsonSchema({"type": "string", "pattern": units.SIZE_PATTERN, "examples": ["64MiB"]}),
]
_Secret = Annotated[
    str,
    BeforeValidator(_checked(units.parse_secret)),
    WithJsonSchema(
        {"type": "string", "pattern": units.SECRET_PATTERN, "description": "A reference, never the value."}
    ),
]


def _translate(annotation: Any) -> Any:
    """A dataclass field's annotation as one that pydantic checks strictly."""
    marker = shape.marker_of(annotation)
    if isinstance(marker, DurationUnit):
        return _Duration
    if isinstance(marker, SizeUnit):
        return _Size
    if isinstance(marker, SecretMark):
        return _Secret
    if isinstance(marker, PlainMark):
        return _plain(marker)
    plain = shape.bare(annotation)
    if shape.is_optional(annotation):
        return _translate(plain if marker is None else Annotated[plain, marker]) | None
    if words := shape.choices(annotation):
        return Literal[words]
    if isinstance(marker, (Reference, TemplateMark)):
        return Annotated[str, Strict(), WithJsonSchema({"type": "string", "description": _said(annotation)})]
    if plain is DoneWhen:
        return list[_done_item()]  # type: ignore[misc]  # a model made at run time
    if shape.is_component(annotation):
        return _component_union()
    if shape.is_mapping(annotation):
        key, value = get_args(plain)
        named = shape.is_component(value) or (
            shape.is_dataclass(value) and shape.named_by_key(shape.bare(value))
        )
        return dict[_NameKey if named else _translate(key), _translate(value)]  # type: ignore[misc]
    if shape.is_sequence(annotation):
        return list[_translate(get_args(plain)[0])]  # type: ignore[misc]
    if shape.is_dataclass(annotation):
        return model_of(plain)
    known: dict[Any, Any] = {str: _Text, int: _Whole, bool: _Truth, shape.AnyJson: Any}
    return known[plain]


def _plain(mark: PlainMark) -> Any:
    return Annotated[
        str,
        BeforeValidator(_checked(lambda written: units.parse_plain(written, mark))),
        WithJsonSchema({"type": "string", "pattern": mark.pattern, "description": f"A {mark.what}."}),
    ]


def _said(annotation: Any) -> str:
    said = shape.described(annotation)
    return f"{said[0].upper()}{said[1:]}."


@shape.remembered
def model_of(cls: type[Any], component_type: str = "") -> type[BaseModel]:
    """The strict model of a dataclass. Field ``x`` stands as ``f_x``, so that no key can clash with a
    method of pydantic; what is left out is not set, and the dataclass's own default holds."""
    fields: dict[str, Any] = {}
    for key in shape.keys_of(cls):
        options: dict[str, Any] = {"alias": key.key}
        default = shape.written_default(key)
        if default is not None:
            options["json_schema_extra"] = {"default": default}
        if not key.required:
            options["default_factory"] = _nothing
        if key.key == "type" and component_type:
            continue
        fields[f"f_{key.field}"] = (_translate(key.annotation), Field(**options))
    if component_type:
        fields["f_type"] = (Literal[component_type], Field(alias="type"))
    for kind, root in KINDS.items():
        if cls is root:
            fields["f_api_version"] = (Literal[API_VERSION], Field(alias="apiVersion"))
            fields["f_kind"] = (Literal[kind], Field(alias="kind"))
    model: type[BaseModel] = create_model(
        cls.__name__,
        __config__=ConfigDict(extra="forbid"),
        __doc__=_first_paragraph(cls),
        **fields,
    )
    return model


def _nothing() -> None:
    return None


def _first_paragraph(cls: type[Any]) -> str | None:
    text = cls.__doc__ or ""
    if text.startswith(f"{cls.__name__}("):  # what dataclasses write themselves
        return None
    return " ".join(text.split("\n\n")[0].replace("``", "`").split()) or None


@shape.remembered
def _component_union() -> Any:
    models = tuple(model_of(cls, kind) for kind, cls in shape.component_classes().items())
    if len(models) == 1:
        return models[0]
    return Annotated[Union[models], Field(discriminator="f_type")]  # noqa: UP007  # built at run time


@shape.remembered
def _done_item() -> type[BaseModel]:
    fields: dict[str, Any] = {
        f"f_{key.field}": (
            _translate(get_args(shape.bare(key.annotation))[0]),
            Field(alias=key.key, default_factory=_nothing),
        )
        for key in shape.keys_of(DoneWhen)
    }
    config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1, "maxProperties": 1})
    model: type[BaseModel] = create_model(
        "DoneItem", __config__=config, __doc__="One check: exactly one of these keys.", **fields
    )
    return model


# --- from a checked model to the dataclass ------------------------------------------------------


@shape.remembered
def _builder(annotation: Any) -> Callable[[Any], Any] | None:
    """How a checked value becomes the dataclass's; None where it may stay as it is."""
    plain = shape.bare(annotation)
    if plain is DoneWhen:
        return _build_done_when
    if shape.is_mapping(annotation):
        value = get_args(plain)[1]
        if shape.is_component(value):
            return _build_components
        if shape.is_dataclass(value) and shape.named_by_key(shape.bare(value)):
            named = shape.bare(value)
            return lambda found: {name: build(named, model, name) for name, model in found.items()}
        key, inner = _builder(get_args(plain)[0]) or _same, _builder(value) or _same
        if key is _same and inner is _same:
            return None
        return lambda found: {key(name): inner(item) for name, item in found.items()}
    if shape.is_sequence(annotation):
        item_builder = _builder(get_args(plain)[0])
        if item_builder is None:
            return tuple
        return lambda found: tuple(item_builder(item) for item in found)
    if shape.is_dataclass(annotation):
        return lambda model: None if model is None else build(plain, model)
    if shape.choices(annotation) and isinstance(plain, type):  # an enumeration
        return lambda word: None if word is None else plain(word)
    return None


def _same(value: Any) -> Any:
    return value


@shape.remembered
def _plan_of(cls: type[Any]) -> tuple[tuple[str, str, Callable[[Any], Any] | None], ...]:
    return tuple((f"f_{key.field}", key.field, _builder(key.annotation)) for key in shape.keys_of(cls))


def build(cls: type[Any], model: Any, name: str = "") -> Any:
    """The dataclass ``cls`` from its checked model; ``name`` is the mapping key it stood under."""
    values: dict[str, Any] = {}
    written = model.model_fields_set
    for attribute, field, convert in _plan_of(cls):
        if attribute in written:
            value = getattr(model, attribute)
            values[field] = value if convert is None else convert(value)
    if key_field := shape.named_by_key(cls):
        values[key_field] = name
    return cls(**values)


def _build_components(found: Mapping[str, Any]) -> dict[str, Any]:
    classes = shape.component_classes()
    return {name: build(classes[model.f_type], model, name) for name, model in found.items()}


def _build_done_when(items: list[Any]) -> DoneWhen:
    lists: dict[str, list[Any]] = {key.field: [] for key in shape.keys_of(DoneWhen)}
    for item in items:
        for key in shape.keys_of(DoneWhen):
            model = getattr(item, f"f_{key.field}")
            if model is not None:
                lists[key.field].append(build(get_args(shape.bare(key.annotation))[0], model))
    return DoneWhen(**{field: tuple(found) for field, found in lists.items()})


# --- JSON Schema for editors --------------------------------------------------------------------


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, _schema: Any) -> bool:
        return False


def schema_documents() -> dict[str, str]:
    """File name → text of the JSON Schemas (2020-12) that stand in ``runbooks/schema/``."""
    documents = {}
    for kind, cls in KINDS.items():
        document = model_of(cls).model_json_schema(by_alias=True, schema_generator=_Untitled)
        document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        document["title"] = f"continuity {kind}"
        text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        documents[f"{kind.lower()}.schema.json"] = text
    return documents
