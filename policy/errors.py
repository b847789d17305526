"""The expected failures that a caller of `policy` can tell apart, as one tree.

    RepoformerError
    ├── ModelError            something is wrong with the model file
    │   ├── ModelMissing      the file does not exist or cannot be read
    │   ├── ModelInvalid      the file is not a model that can complete code
    │   └── ModelTooLarge     this machine has too little memory for the model
    ├── ServerUnavailable     the server that generates cannot be used at the moment
    └── EngineError           something is wrong with the worker process
        ├── EngineUnavailable the worker cannot be started, or dies repeatedly
        │   └── OutOfMemory   llama.cpp cannot allocate memory for the model or its context
        ├── EngineDied        the worker died while it worked on this request
        ├── EngineFailed      the worker answered that it cannot process the request
        └── Preempted         something more urgent ended this request

Each message says what happened and what to do about it, and is written for the user of the editor. Cancelling a request
is not an error; it raises `asyncio.CancelledError`.
"""

from __future__ import annotations


class RepoformerError(Exception):
    """Base class of all expected failures."""


class ModelError(RepoformerError):
    """Something is wrong with the model file."""


class ModelMissing(ModelError):
    """The model file does not exist or cannot be read."""


class ModelInvalid(ModelError):
    """The file is not a model that can complete code."""


class ModelTooLarge(ModelError):
    """This machine has too little memory for the model at the moment."""


class ServerUnavailable(RepoformerError):
    """The server that generates cannot be used at the moment.

    `retry_after` is the delay in seconds that the server asked for, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineError(RepoformerError):
    """Something is wrong with the worker process."""


class EngineUnavailable(EngineError):
    """The worker cannot be started, or dies repeatedly."""


class OutOfMemory(EngineUnavailable):
    """llama.cpp cannot allocate memory for the model or its context, on the GPU or in main memory."""


class EngineDied(EngineError):
    """The worker died while it worked on this request.

    `crashed` is true if the worker's own code crashed. It is false if another program ended the worker, or if the cause
    is unknown.
    """

    def __init__(self, message: str, *, crashed: bool = False) -> None:
        super().__init__(message)
        self.crashed = crashed


class EngineFailed(EngineError):
    """The worker answered that it cannot process the request."""


class Preempted(EngineError):
    """A request that a caller waits for, or a change of the settings, ended this request."""
