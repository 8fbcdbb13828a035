"""SVHN as its authors publish it, cropped to one digit an image: files of MATLAB.

``X`` has the pixels (32, 32, 3, n), ``y`` the labels (n, 1), where 10 stands for the digit 0.

Source: Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Y. Ng, Reading Digits in Natural Images with
Unsupervised Feature Learning, 2011.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slth.data.checksums import check
from slth.data.formats import Archive, Part, Reading, check_labels, first_folder, part_of, without_images

TRAIN, TEST = "train_32x32.mat", "test_32x32.mat"
SHAPE = (32, 32, 3)


@dataclass(frozen=True)
class Mat:
    """A folder of two files, or of the one of the test part.

    Args:
      name: of the set.
      train, test: numbers of images.
      classes: how many there are.
    """

    name: str = "svhn"
    train: int = 73_257
    test: int = 26_032
    classes: int = 10

    @property
    def wanted(self) -> str:
        """The two files."""
        return f"{TRAIN} and {TEST}"

    def files(self, place: Path | None) -> list[Path] | None:
        """The training file, where it is there, and the test file."""
        folder = first_folder(place, (self.name,), (TRAIN, TEST))
        if folder is None:
            return None
        if not (folder / TEST).is_file():
            raise ValueError(f"data folder {folder} lacks {TEST}: add it")
        return [folder / name for name in (TRAIN, TEST) if (folder / name).is_file()]

    def read(self, place: Path | None, reading: Reading) -> Archive:
        """Both parts; a training part that is not there has no images."""
        counts = {TRAIN: self.train, TEST: self.test}
        parts = {path.name: self._part(path, counts[path.name]) for path in self.files(place) or []}
        empty = without_images(SHAPE, np.zeros(0, np.int32))
        return Archive(parts.get(TRAIN, empty), parts[TEST], self.classes)

    def _part(self, path: Path, count: int) -> Part:
        from scipy.io import loadmat

        check(self.name, path)
        where = f"data file {path}"
        try:
            held = loadmat(path, variable_names=["X", "y"])
        except Exception as error:  # whatever bytes that are no such file make of SciPy
            said = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{where} cannot be read as .mat ({said}): download it again") from error
        if not {"X", "y"} <= set(held):
            raise ValueError(f"{where}: expected X and y, got {', '.join(held)}: download it again")
        pixels, labels = held["X"], held["y"]
        if pixels.shape != (*SHAPE, count) or labels.shape != (count, 1) or pixels.dtype != np.uint8:
            raise ValueError(
                f"{where}: expected X of shape {(*SHAPE, count)} in uint8 and y of shape {(count, 1)}, got "
                f"{pixels.shape} in {pixels.dtype} and {labels.shape}: download it again"
            )
        digits = labels[:, 0].astype(np.int64)
        if not (digits.min() >= 1 and digits.max() <= 10):
            raise ValueError(
                f"{where}: expected labels from 1 to 10, got {digits.min()} to {digits.max()}: "
                "download it again"
            )
        return part_of(
            np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)), check_labels(where, digits % 10, self.classes)
        )
