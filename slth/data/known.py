"""The data sets that are known: their forms on disk, their classes, their normalisation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from slth.data.cifar import CIFAR10, CIFAR100
from slth.data.digits import Digits
from slth.data.folder import Folder
from slth.data.formats import Format
from slth.data.idx import Idx
from slth.data.imagenet import CLASSES, PAGE, Photographs, PreparedPhotographs
from slth.data.mat import Mat
from slth.data.npz import Npz
from slth.data.prepared import Prepared, command


class Known(NamedTuple):
    """A data set."""

    formats: tuple[Format, ...]
    """In the order in which they are looked for."""
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    page: str | None = None
    """Where its authors publish it."""

    @property
    def prepared(self) -> Prepared | None:
        """How TFDS prepares it; None where it does not."""
        return next((one for one in self.formats if isinstance(one, Prepared)), None)


KNOWN: Mapping[str, Known] = {
    "digits": Known((Digits(),), (0.3053,), (0.3761,)),
    "mnist": Known(
        (
            Prepared("mnist", 10, "mnist"),
            Npz("mnist", ("mnist.npz", "mnist_test.npz"), 10),
            Idx("mnist", ("mnist", "raw", "MNIST/raw")),
        ),
        *((0.1307,), (0.3081,)),
        page="https://storage.googleapis.com/cvdf-datasets/mnist",
    ),
    "fashion_mnist": Known(
        (
            Prepared("fashion_mnist", 10, "fashion_mnist"),
            Npz("fashion_mnist", ("fashion_mnist.npz",), 10),
            Idx("fashion_mnist", ("fashion_mnist", "raw", "FashionMNIST/raw")),
        ),
        *((0.2860,), (0.3530,)),
        page="https://github.com/zalandoresearch/fashion-mnist",
    ),
    "cifar10": Known(
        (Prepared("cifar10", 10, "cifar10"), Npz("cifar10", ("cifar10.npz",), 10), *CIFAR10),
        *((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "cifar100": Known(
        (Prepared("cifar100", 100, "cifar100"), Npz("cifar100", ("cifar100.npz",), 100), *CIFAR100),
        *((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "svhn": Known(
        (Prepared("svhn", 10, "svhn_cropped"), Npz("svhn", ("svhn.npz",), 10), Mat()),
        *((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
        page="http://ufldl.stanford.edu/housenumbers",
    ),
    "imagenet": Known(
        (
            PreparedPhotographs("imagenet", CLASSES, "imagenet2012", ("train", "validation")),
            Photographs(),
        ),
        *((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        page=PAGE,
    ),
    "folder": Known((Folder(),)),
    "npz": Known((Npz("npz"),)),
}
"""By name. Mean and deviation are those of the training pixels, scaled to [0, 1], by channel: of the digits
computed here, of MNIST as in the example of PyTorch, of Fashion-MNIST, CIFAR-100 and SVHN as published
networks round them, of ImageNet as torchvision has them. Those of CIFAR-10 are those of ImageNet, which its
published ReLU networks were trained with."""


def find(name: str, place: Path | None) -> Format:
    """The form in which a set lies at a place. A set of one form refuses the place itself, when it is read.

    Raises: FileNotFoundError where nothing of it is there, with what was expected and what to do.
    """
    known = KNOWN[name]
    if len(known.formats) == 1:
        return known.formats[0]
    for one in known.formats:
        if one.files(place) is not None:
            return one
    prepared = known.prepared
    where = "TFDS's folder" if place is None else place
    nearby = prepared.nearby(place) if prepared is not None and place is not None else None
    if nearby is not None:
        raise FileNotFoundError(f"{name} is not in {where}: the folder to name is {nearby}")
    forms = [one.wanted for one in known.formats]
    raise FileNotFoundError(
        f"{name} is not in {where}: expected {', '.join(forms[:-1])} or {forms[-1]}: "
        f"run `{command(name, place)}`, or download its files from {known.page} and name their folder"
    )
