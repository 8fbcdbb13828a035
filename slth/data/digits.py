"""The handwritten digits that come with scikit-learn."""

from pathlib import Path

import numpy as np

from slth.data.formats import Archive, Reading, part_of

TEST = 360  # a fifth


class Digits:
    """1,797 images of 8x8 pixels; a stratified fifth, drawn with seed 0, is the test part.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998.
    """

    @property
    def wanted(self) -> str:
        """Nothing: they are always there."""
        return "nothing"

    def files(self, place: Path | None) -> list[Path] | None:
        """None of the user's."""
        return []

    def read(self, place: Path | None, reading: Reading) -> Archive:
        """Both parts."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        pixels, labels = load_digits(return_X_y=True)
        images = np.asarray(pixels).reshape(-1, 8, 8, 1) / 16  # grey values 0..16
        labels = np.asarray(labels)
        # Drawn, because the file's order follows its writers and partly the digits themselves.
        train, test = train_test_split(
            np.arange(len(labels)), test_size=TEST, random_state=0, stratify=labels
        )
        return Archive(part_of(images[train], labels[train]), part_of(images[test], labels[test]), 10)
