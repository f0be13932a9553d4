"""clipsieve: meta-class retrieval, labelling and detection over image collections.

Names below are imported when first touched, so that `import clipsieve` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipsieve.client import (
        Client,
        Modality,
    )
    from clipsieve.errors import (
        ClipsieveError,
        Closed,
        CollectionChanged,
        CollectionDamaged,
        CollectionError,
        CollectionLocked,
        CollectionMissing,
        CollectionReadOnly,
        InputError,
        MissingExtra,
        ModelMismatch,
        ModelUnavailable,
        NotFound,
        Overloaded,
        ServiceUnavailable,
        StoredDamaged,
        StoreUnavailable,
        TimedOut,
        TooLarge,
    )
    from clipsieve.opening import open_collection as open
    from clipsieve.types import (
        ClassSet,
        Distribution,
        Embeddings,
        Example,
        Hit,
        ImageItem,
        MetaClass,
        ModelId,
        Neighbors,
        QueryResult,
        Regions,
    )

__version__ = "0.1.0"

__all__ = [
    "ClassSet",
    "Client",
    "ClipsieveError",
    "Closed",
    "CollectionChanged",
    "CollectionDamaged",
    "CollectionError",
    "CollectionLocked",
    "CollectionMissing",
    "CollectionReadOnly",
    "Distribution",
    "Embeddings",
    "Example",
    "Hit",
    "ImageItem",
    "InputError",
    "MetaClass",
    "MissingExtra",
    "Modality",
    "ModelId",
    "ModelMismatch",
    "ModelUnavailable",
    "Neighbors",
    "NotFound",
    "Overloaded",
    "QueryResult",
    "Regions",
    "ServiceUnavailable",
    "StoreUnavailable",
    "StoredDamaged",
    "TimedOut",
    "TooLarge",
    "__version__",
    "open",
]


def __getattr__(name: str) -> Any:
    if name == "open":
        return import_module("clipsieve.opening").open_collection
    if name in __all__:
        for module in ("clipsieve.types", "clipsieve.errors", "clipsieve.client"):
            if hasattr(import_module(module), name):
                return getattr(import_module(module), name)
    raise AttributeError(f"module 'clipsieve' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
