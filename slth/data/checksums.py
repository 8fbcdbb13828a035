"""Published checksums of original archives, and the check of a file against them.

MD5 where the set's authors, or torchvision for files inside their archive, publish it: the CIFAR archives for
Python with their batches. SHA-256 for all else, as TensorFlow Datasets (TFDS) publishes it with its
downloads; a test compares the table with the installed TFDS.
"""

import hashlib
from pathlib import Path

CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
TORCHVISION = "torchvision"
TFDS = "TFDS"

# By set and file: who publishes it, and the checksum.
PUBLISHED: dict[tuple[str, str], tuple[str, str]] = {
    ("cifar10", "cifar-10-python.tar.gz"): (CIFAR, "c58f30108f718f92721af3b95e74349a"),
    ("cifar10", "data_batch_1"): (TORCHVISION, "c99cafc152244af753f735de768cd75f"),
    ("cifar10", "data_batch_2"): (TORCHVISION, "d4bba439e000b95fd0a9bffe97cbabec"),
    ("cifar10", "data_batch_3"): (TORCHVISION, "54ebc095f3ab1f0389bbae665268c751"),
    ("cifar10", "data_batch_4"): (TORCHVISION, "634d18415352ddfa80567beed471001a"),
    ("cifar10", "data_batch_5"): (TORCHVISION, "482c414d41f54cd18b22e5b47cb7c3cb"),
    ("cifar10", "test_batch"): (TORCHVISION, "40351d587109b95175f43aff81a1287e"),
    ("cifar100", "cifar-100-python.tar.gz"): (CIFAR, "eb9058c3a382ffc7106e4002c42a8d85"),
    ("cifar100", "train"): (TORCHVISION, "16019d7e3df5f24257cddd939b257f8d"),
    ("cifar100", "test"): (TORCHVISION, "f0ef6b0ae62326f3e7ffdfab6717acfc"),
    **{
        (name, file): (TFDS, sha256)
        for name, files in {
            "cifar10": {
                "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            },
            "cifar100": {
                "cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            },
            "mnist": {
                "train-images-idx3-ubyte.gz": (
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
                ),
                "train-labels-idx1-ubyte.gz": (
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
                ),
                "t10k-images-idx3-ubyte.gz": (
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
                ),
                "t10k-labels-idx1-ubyte.gz": (
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
                ),
            },
            "fashion_mnist": {
                "train-images-idx3-ubyte.gz": (
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
                ),
                "train-labels-idx1-ubyte.gz": (
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
                ),
                "t10k-images-idx3-ubyte.gz": (
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
                ),
                "t10k-labels-idx1-ubyte.gz": (
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
                ),
            },
            "svhn": {
                "train_32x32.mat": "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
                "test_32x32.mat": "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
            },
        }.items()
        for file, sha256 in files.items()
    },
}


def check(name: str, path: Path) -> None:
    """Refuse a file that is not the published one of its name; a file without a checksum passes.

    Args:
      name: of the set.
      path: the file.
    Raises: ValueError with both checksums.
    """
    if (name, path.name) not in PUBLISHED:
        return
    publisher, wanted = PUBLISHED[name, path.name]
    kind = "md5" if len(wanted) == 32 else "sha256"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    if found != wanted:
        raise ValueError(
            f"data file {path} is damaged or another file: expected {kind.upper()} {wanted} (published by "
            f"{publisher}), got {found}: download it again; data of your own are read with data=npz"
        )
