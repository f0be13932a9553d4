"""The models behind a service, each loaded once, whoever asks for it."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from clipsieve.parts import Parts

if TYPE_CHECKING:
    from clipsieve.inference.batched_detector import BatchedDetector
    from clipsieve.protocols import Detector


class Models:
    """Embedders by name, each made once and for many threads: what they ask for at the same time runs as a batch.

    Detectors likewise, images alone as batches.

    prepared  told how long images and texts took to prepare, see `clipsieve.inference.batcher`
    options   its BatchOptions, if they are to be others
    """

    def __init__(self, parts: Parts, device: str, prepared: Callable[[str, int], None], options: Any = None) -> None:
        self._parts, self._device, self._prepared, self._options = parts, device, prepared, options
        self._made: dict[str, Any] = {}
        self._batched: dict[str, Any] = {}
        self._detectors: dict[str, BatchedDetector] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Any:
        """The embedder of that name, of images and of what it takes besides."""
        return self._get(name, self._parts.load, "embed_images")

    def texts(self, name: str) -> Any:
        """The embedder of texts of that name, which may be one of texts alone."""
        return self._get(name, self._parts.load_texts or self._parts.load, "embed_texts")

    def _get(self, name: str, load: Callable[..., Any], does: str) -> Any:
        from clipsieve.inference.batcher import batched
        from clipsieve.inference.embedder import use_all_processors
        from clipsieve.inference.text_cache import CachedEmbedder, TextCache

        with self._lock:
            if not hasattr(self._made.get(name), does):
                one = batched(load(name, device=self._device), self._options, prepared=self._prepared)
                use_all_processors()
                self._batched[name] = one
                if not hasattr(one, "embed_texts"):
                    self._made[name] = one
                else:
                    self._made[name] = CachedEmbedder(one) if hasattr(one, "embed_images") else TextCache(one)
            return self._made[name]

    def batcher(self, name: str) -> Any:
        """The same without the cache of texts."""
        self.get(name)
        return self._batched[name]

    def detector(self, name: str) -> "Detector":
        """The detector of that name, which finds as many regions in an image as DirectAI's server looks at."""
        from clipsieve.inference.batched_detector import BatchedDetector
        from clipsieve.inference.detector import MOST_REGIONS
        from clipsieve.inference.embedder import use_all_processors

        with self._lock:
            if name not in self._detectors:
                one = self._parts.load_detector(name, device=self._device, regions=MOST_REGIONS)
                self._detectors[name] = BatchedDetector(one)
                use_all_processors()
            return self._detectors[name]

    def figures(self) -> dict[str, tuple[Any, Any]]:
        """Model -> what its batcher counted, and its cache of texts or None. No wait for a model that is loading."""
        made, batchers = self._made.copy(), self._batched.copy()
        caches = {name: one.statistics() for name, one in made.items() if one is not batchers[name]}
        found: dict[str, tuple[Any, Any]] = {n: (one.statistics(), caches.get(n)) for n, one in batchers.items()}
        return found | {f"{n} (detector)": (one.statistics(), None) for n, one in self._detectors.copy().items()}

    def close(self) -> None:
        """Finish what was asked for, and end the threads."""
        for one in (*self._batched.values(), *self._detectors.values()):
            one.close()
