"""Errors that nurseries have wrapped, taken out again for the terminal."""

from collections.abc import Iterator


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside exception groups, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
