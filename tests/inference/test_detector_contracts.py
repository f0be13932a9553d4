import pytest

from clipsieve.inference.detector import open_detector
from clipsieve.inference.fake import FakeDetector
from tests.contracts.detector import StagedDetectorContract


class TestFake(StagedDetectorContract):
    @pytest.fixture
    def detector(self):
        return FakeDetector()


class TestOwlVit(StagedDetectorContract):
    @pytest.fixture
    def detector(self, owlvit_folder):
        return open_detector(f"local-dir:{owlvit_folder}", device="cpu")


class TestOwlv2(StagedDetectorContract):
    @pytest.fixture
    def detector(self, owlv2_folder):
        return open_detector(str(owlv2_folder), device="cpu")
