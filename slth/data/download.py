"""Downloading and preparing a set through TFDS, which needs TensorFlow and a network."""

from pathlib import Path

from slth.data.known import KNOWN
from slth.data.prepared import FORMAT, quiet

PREPARED = tuple(name for name, known in KNOWN.items() if known.prepared is not None)
"""The sets that TFDS prepares."""


def prepare(name: str, directory: str | Path | None = None) -> Path:
    """Download a data set and write it as array_record, which is read without TensorFlow.

    Needs the extra ``prepare`` and the internet. An existing prepared folder is left as it is.

    Returns: the folder with the prepared set.
    Raises: ValueError for a set that TFDS does not prepare; ImportError without TensorFlow; OSError where it
      cannot be downloaded. The last two say how to get the set without.

    Example:
      >>> import slth.data
      >>> slth.data.prepare("cifar10", "data")      # doctest: +SKIP
    """
    if name not in PREPARED:
        raise ValueError(f"data {name!r} cannot be prepared: choose one of {', '.join(PREPARED)}")
    known = KNOWN[name].prepared
    assert known is not None
    folder = None if directory is None else Path(directory).expanduser()
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'preparing data needs TensorFlow (reading does not): pip install -e ".[prepare]", or '
            + by_hand(name, folder)
        ) from error
    with quiet():
        import tensorflow_datasets as tfds

        builder = tfds.builder(known.called, data_dir=folder, file_format=FORMAT)
        try:
            builder.download_and_prepare()
        except Exception as error:  # of the network, of a page that has moved, of a full disk
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise OSError(f"{name} cannot be downloaded ({said}): {by_hand(name, folder)}") from error
    return Path(builder.data_path)


def by_hand(name: str, directory: Path | None) -> str:
    """How to get a set on a machine without a network or without TensorFlow."""
    known = KNOWN[name]
    place = "DIR" if directory is None else directory
    return (
        f"without either: get {known.formats[-1].wanted} from {known.page} (on another machine, say), put "
        f"them into {place} and use data={name} data.dir={place}"
    )
