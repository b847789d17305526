"""Every failure a caller of `policy` may want to tell apart, in one tree.

    RepoformerError
    ├── ModelError            the model file is the problem
    │   ├── ModelMissing      it is not there, or cannot be read
    │   ├── ModelInvalid      it is not a model that can complete code
    │   └── ModelTooLarge     this machine has not the memory for it
    ├── ServerUnavailable     the server that generates cannot be used at the moment
    └── EngineError           the worker process is the problem
        ├── EngineUnavailable it could not be started, or keeps dying
        │   └── OutOfMemory   llama.cpp got no memory for the model or its context
        ├── EngineDied        it died while it worked on this request
        ├── EngineFailed      it answered that the request could not be done
        └── GaveWay           it was in the background, and stopped for a request that somebody waits for

Each message says what happened and what to do about it; it is written for the person in front of the editor. A
cancelled request is not an error: it ends as `asyncio.CancelledError`.
"""

from __future__ import annotations


class RepoformerError(Exception):
    """Base of everything that is raised on purpose."""


class ModelError(RepoformerError):
    """The model file is the problem."""


class ModelMissing(ModelError):
    """The model file is not there, or cannot be read."""


class ModelInvalid(ModelError):
    """The file is not a model that can complete code."""


class ModelTooLarge(ModelError):
    """This machine has not the memory for the model, at the moment."""


class ServerUnavailable(RepoformerError):
    """The server that generates cannot be used at the moment.

    `retry_after` is the number of seconds after which it wants to be asked again, where it said so.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineError(RepoformerError):
    """The worker process is the problem."""


class EngineUnavailable(EngineError):
    """The worker could not be started, or keeps dying."""


class OutOfMemory(EngineUnavailable):
    """llama.cpp got no memory for the model or its context, on the GPU or off it."""


class EngineDied(EngineError):
    """The worker died while it worked on this request.

    `crashed`: its own code crashed, as far as is known; nothing from outside ended it.
    """

    def __init__(self, message: str, *, crashed: bool = False) -> None:
        super().__init__(message)
        self.crashed = crashed


class EngineFailed(EngineError):
    """The worker answered that the request could not be done."""


class GaveWay(EngineError):
    """A request in the background stopped for one that somebody waits for."""
