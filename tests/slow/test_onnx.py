"""A thousand damaged ONNX files."""

from pathlib import Path

import pytest

from tests.interop.onnx_damage import damage

pytestmark = pytest.mark.slow


def test_a_thousand_damaged_files_are_refused_or_load(tmp_path: Path):
    said = damage(tmp_path, range(1000))
    print(dict(said))
    assert said["loaded"] + said["refused"] == 1000
    assert min(said.values()) > 100
