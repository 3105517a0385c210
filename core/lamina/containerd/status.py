"""Which gRPC code an error of ours is told by, so that containerd's client makes the same error of it."""

from __future__ import annotations

from typing import Final

from grpc import StatusCode

from lamina import errors

# What containerd tells apart: INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION, UNAVAILABLE,
# UNIMPLEMENTED. All others are one error to it, whose message it passes on.
CODES: Final[dict[type[BaseException], StatusCode]] = {
    errors.BadRequest: StatusCode.INVALID_ARGUMENT,
    errors.WrongKind: StatusCode.FAILED_PRECONDITION,
    errors.WrongParent: StatusCode.INVALID_ARGUMENT,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.AlreadyExists: StatusCode.ALREADY_EXISTS,
    errors.InUse: StatusCode.FAILED_PRECONDITION,
    errors.DriverNotFound: StatusCode.UNAVAILABLE,
    errors.Unhealthy: StatusCode.UNAVAILABLE,
    errors.DriverFailed: StatusCode.INTERNAL,
    errors.ProgramFailed: StatusCode.INTERNAL,
    errors.BadArchive: StatusCode.INVALID_ARGUMENT,
    errors.DigestMismatch: StatusCode.DATA_LOSS,
    errors.StoreBroken: StatusCode.DATA_LOSS,
    errors.NoSpace: StatusCode.RESOURCE_EXHAUSTED,
    errors.CannotRun: StatusCode.INTERNAL,
    errors.RegistryError: StatusCode.INTERNAL,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.LaminaError: StatusCode.UNKNOWN,
    Exception: StatusCode.UNKNOWN,  # a bug
}


def code_of(error: Exception) -> StatusCode:
    """The code of the nearest class in the table."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def message_of(error: Exception) -> str:
    """What is told beside the code: always text that UTF-8 can hold, though names of files may not be."""
    text = str(error) if isinstance(error, errors.LaminaError) else f"a bug in lamina: {type(error).__name__}: {error}"
    return text.encode(errors="backslashreplace").decode()
