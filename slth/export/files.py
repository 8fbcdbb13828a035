"""Files of a network for other programs, written whole or not at all."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from slth import nn
from slth.export.onnx_model import onnx_model
from slth.export.torch_module import HEADER, identifier, torch_files
from slth.interop.files import write_whole
from slth.nn.activations import ACTIVATIONS
from slth.nn.graph import Apply, graph, linear_maps
from slth.nn.layers import Activation, BatchNorm, Conv
from slth.nn.network import Network
from slth.types import Params

KNOWN = frozenset(ACTIVATIONS)
"""The activations that other programs have, or whose formula is written out there: those of the table."""


class Exported(NamedTuple):
    """What was written.

    Example:
      >>> from slth import export
      >>> export.Exported((), parameters=4, nonzero=1, bytes=100).nonzero
      1
    """

    files: tuple[Path, ...]
    parameters: int
    """Numbers that the files hold as weights and biases, zeros too."""
    nonzero: int
    """Those that are not 0."""
    bytes: int
    """Size of all files."""


def export_network(
    path: str | Path,
    network: Network,
    params: Params,
    factor: float = 1.0,
    *,
    like: str | None = None,
    about: str = "a network of slth",
) -> Exported:
    r"""Write :math:`\lambda f(x)` for other programs: ``.onnx``, or ``.safetensors`` like PyTorch's.

    Images have their channels first in these files: (n, c, h, w), (n, c, length) or (n, features).

    Args:
      path: ends in ``.onnx``, or in ``.safetensors`` with ``like="pytorch"``; a module in Python with the
        same name is then written beside it.
      network, params: without batch norm, as of `slth.compact.compact` or a `slth.Target`.
      factor: lambda, by which outputs are multiplied.
      about: one line that the files say of themselves.
    Returns: the files and their sizes.
    Raises: ValueError for another ending, a network that these files cannot hold, a missing library (onnx),
      or a Python file in the module's place that is not one of these.

    Example:
      >>> import jax, tempfile, slth
      >>> from slth import export, nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> params = nn.init(network, jax.random.key(0))
      >>> file = tempfile.mkdtemp() + "/net.safetensors"
      >>> made = export.export_network(file, network, params, like="pytorch")
      >>> [path.name for path in made.files], made.parameters
      (['net.safetensors', 'net.py'], 23)
    """
    path = Path(path).expanduser()
    check(network)
    match path.suffix, like:
        case ".onnx", None:
            content = {path: onnx_model(network, params, factor, about).SerializeToString()}
        case ".safetensors", "pytorch":
            module = path.with_name(f"{identifier(path.stem)}.py")
            if module.is_file() and not module.read_bytes().startswith(HEADER.encode()):
                raise ValueError(f"{module} is another program: choose another name than {path.name}")
            files = torch_files(network, params, factor, about, path.name)
            content = {path: files.arrays, module: files.module.encode()}
        case _:
            raise ValueError(
                f'{path.name}, like={like!r}: a file ends in .onnx, or in .safetensors with like="pytorch" '
                "(slth.interop.save_network writes slth's own)"
            )
    for file, data in content.items():
        write_whole(file, data)
    nonzero = sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(params))
    return Exported(tuple(content), nn.count(params), nonzero, sum(map(len, content.values())))


def check(network: Network) -> None:
    """Refuse what the files of other programs cannot hold, in one line.

    Raises: ValueError, naming the layer.
    """
    for step in graph(network):
        match step:
            case Apply(Activation(kind)) if kind not in KNOWN:
                raise ValueError(
                    f"activation {kind!r} is one of your own, and only its name is known: no file of another "
                    f"program can hold it. Those of the table can be exported: {', '.join(sorted(KNOWN))}"
                )
            case Apply(BatchNorm()):
                raise ValueError(
                    f"{step.path} is a batch norm: fold it first (slth.Target.of or slth.nn.fold_batch_norm)"
                )
    for path, entry in linear_maps(network).items():
        if isinstance(entry.layer, Conv) and min(map(min, entry.layer.padding)) < 0:
            raise ValueError(
                f"{path} has padding below 0, {entry.layer.padding}, which ONNX and PyTorch refuse"
            )
