"""The public names."""

import zmesh
from zmesh import errors


def test_all_names_are_there_and_sorted() -> None:
    assert sorted(zmesh.__all__) == list(zmesh.__all__)
    for name in zmesh.__all__:
        assert getattr(zmesh, name) is not None


def test_every_error_is_public() -> None:
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.ZmeshError):
            assert name in zmesh.__all__, name


def test_public_names_say_what_they_are() -> None:
    for name in zmesh.__all__:
        value = getattr(zmesh, name)
        if isinstance(value, type):
            assert value.__doc__, name
