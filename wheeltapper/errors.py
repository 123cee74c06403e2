"""
Every error Wheeltapper raises on purpose, one class per reaction.

    WheeltapperError
    ├── SettingsError            fix the settings or the command line
    │   └── MissingExtraError    install the extra that it names
    ├── MessageError             drop this message, keep serving
    ├── DefinitionError          correct the detector or alarm model
    ├── ModelError               correct or replace the trained model
    ├── DataError                correct the data that was to be learnt from or scored
    └── UnavailableError         try again later: a broker, a disk, a service is away

Messages read ``where: what``, in one line, with the remedy where there is one.
"""


class WheeltapperError(Exception):
    """Root of the tree; caught once, at the edge of a process."""

    exit_code = 1


class SettingsError(WheeltapperError):
    """The settings or the command line ask for something that cannot be done."""

    exit_code = 2


class MissingExtraError(SettingsError):
    """A library that an extra brings is not installed."""

    def __init__(self, extra: str, library: str) -> None:
        self.extra = extra
        self.library = library
        super().__init__(f"{library}: not installed; run: pip install 'wheeltapper[{extra}]'")


class MessageError(WheeltapperError):
    """One message is malformed; the sender must correct it, the receiver goes on."""


class DefinitionError(WheeltapperError):
    """A detector or alarm model is not valid."""

    def __init__(self, message: str, *, path: str = "") -> None:
        self.path = path
        super().__init__(f"{path}: {message}" if path else message)


class ModelError(WheeltapperError):
    """A trained model cannot be loaded, verified or run."""


class DataError(WheeltapperError):
    """Data cannot be learnt from or scored; says which column or row and why."""


class UnavailableError(WheeltapperError):
    """Something outside is away; the same call may succeed later."""
