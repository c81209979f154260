"""Whether a call fits an image's functions, by what its label says of them: asked before anything is sealed or sent."""

from collections.abc import Mapping, Sequence

from folkmoot.algorithm import arrow, values
from folkmoot.algorithm.errors import AlgorithmError, ArgumentsInvalid
from folkmoot.algorithm.functions import Function, find
from folkmoot.algorithm.schema import Attached, misfit
from folkmoot.trust import FolkmootError


def check_call(
    functions: Mapping[str, Function], name: str, arguments: Mapping[str, object], *, labels: Sequence[str] = ()
) -> None:
    """Raise FUNCTION_NOT_FOUND, naming those there are, or ARGUMENTS_INVALID with the signature, unless the call fits.

    It fits by names, by types as far as the function says them, and by the data that it needs. Raises NOT_SERIALIZABLE too.
    """
    try:
        function = find(functions, name)
        function.check(arguments)
        _check_types(function, arguments)
        _check_data(function, labels)
    except AlgorithmError as error:
        raise FolkmootError(error.reason, error.message, metadata={"function": name}) from error


def _check_types(function: Function, arguments: Mapping[str, object]) -> None:
    allowed = {parameter.name: parameter.allowed for parameter in function.parameters}
    faults = [misfit(_travelling(value, name), allowed[name], name) for name, value in arguments.items()]
    if faults := list(filter(None, faults)):
        raise ArgumentsInvalid(f"the arguments do not fit: {'; '.join(faults)}. It is {function.signature}")


def _check_data(function: Function, labels: Sequence[str]) -> None:
    needed = function.data.tables
    if isinstance(needed, int) and len(labels) < needed:
        raise ArgumentsInvalid(
            f"{function.name} needs the data of {needed} label{'s' if needed > 1 else ''}, and the task names "
            f"{len(labels) or 'none'}: say labels=[…]"
        )


def _travelling(value: object, name: str) -> object:
    """A value as it will travel: what does not travel as JSON is known by its media type alone."""
    if isinstance(value, bytes | bytearray | memoryview):
        return Attached(values.BYTES_TYPE)
    return Attached(values.ARROW_TYPE) if arrow.is_table(value) else values.to_json(value, name)
