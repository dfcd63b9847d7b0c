"""Bodies of the application's own types: what arrived as plain msgpack, made into them again."""

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast, get_type_hints

from zmesh.errors import InvalidBody, InvalidOption, MissingPackage

T = TypeVar("T")


def convert(body: object, wanted: type[T]) -> T:
    """Return the body as the type wanted.

    A pydantic model validates by itself, everything else is msgspec's work: dataclasses, Structs,
    containers of such, unions.

    Raises:
        InvalidBody: it is none, with the path of the field that is wrong.
        InvalidOption: nothing can be converted to that type.
        MissingPackage: msgspec is not installed.
    """
    validate = getattr(wanted, "model_validate", None)
    if validate is not None:
        return cast("T", _validated(body, wanted, validate))
    try:
        import msgspec  # noqa: PLC0415  # an extra
    except ImportError:
        raise MissingPackage("a typed body", "msgspec", "typed") from None
    try:
        return msgspec.convert(body, wanted)
    except msgspec.ValidationError as error:
        raise InvalidBody(_name(wanted), str(error)) from error
    except TypeError as error:
        raise InvalidOption("type", wanted, f"one that msgspec converts to: {error}") from error


def _validated(body: object, wanted: type, validate: Callable[[object], object]) -> object:
    from pydantic import ValidationError  # noqa: PLC0415  # whoever has a model has it

    try:
        return validate(body)
    except ValidationError as error:
        details = [
            f"{found['msg']} - at `{'.'.join(('$', *map(str, found['loc'])))}`"
            for found in error.errors(include_input=False, include_url=False)
        ]
        raise InvalidBody(_name(wanted), "; ".join(details)) from error


def check_type(wanted: Any) -> None:
    """Check that bodies can become a type, before there is one.

    Raises:
        InvalidOption: none can.
        MissingPackage: msgspec is not installed.
    """
    if getattr(wanted, "model_validate", None) is None:
        with suppress(InvalidBody):  # so it knows the type
            convert(None, wanted)


def _name(wanted: Any) -> str:
    return getattr(wanted, "__name__", None) or str(wanted)


def body_type(handler: Callable[..., Any], message: type) -> Any:
    """Return the type a handler's first parameter is annotated with; None where it is a message.

    `message` is the class of messages. A parameter without annotation, or one that says `Any`,
    takes the message itself.

    Raises:
        InvalidOption: an annotation that cannot be read.
    """
    function = handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)  # noqa: B004
    try:
        parameters = list(inspect.signature(handler).parameters.values())
        hints = get_type_hints(inspect.unwrap(function))
    except NameError as error:
        raise InvalidOption("handler", handler, f"annotated with what exists: {error}") from error
    except (TypeError, ValueError):
        return None  # built in: it says nothing of its parameters
    wanted = hints.get(parameters[0].name) if parameters else None
    if wanted is None or wanted is Any or wanted is object:
        return None
    return None if isinstance(wanted, type) and issubclass(message, wanted) else wanted
