"""PyTorch files: what PyTorch wrote is read, what would run is refused, what is broken is named."""

import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from slth.interop import UnsafePickle, read_pytorch
from slth.interop.pickles import KNOWN
from slth.interop.pytorch import LEGACY_MAGIC, LEGACY_VERSION
from tests.fixtures.make_pytorch import value

FIXTURES = Path(__file__).parents[1] / "fixtures"
SHAPES = {
    "0.weight": (3, 2, 3, 3),
    "0.bias": (3,),
    "1.weight": (3,),
    "1.bias": (3,),
    "1.running_mean": (3,),
    "1.running_var": (3,),
    "4.weight": (4, 48),
    "4.bias": (4,),
}


@pytest.mark.parametrize(
    "file, prefix", [("state_zip.pt", ""), ("state_legacy.pth", ""), ("state_wrapped.th", "module.")]
)
def test_a_state_dict_is_read_bit_for_bit(file: str, prefix: str):
    arrays = read_pytorch(FIXTURES / file)
    if prefix:
        assert list(arrays) == ["state_dict", "optimizer"]
        assert arrays["optimizer"] == {"state": {"0": {"step": 5.0}}}
        arrays = arrays["state_dict"]
    tracked = arrays.pop(f"{prefix}1.num_batches_tracked")
    assert (tracked.dtype, tracked.shape, int(tracked)) == (np.int64, (), 7)
    assert list(arrays) == [prefix + name for name in SHAPES]
    for name, shape in SHAPES.items():
        array = arrays[prefix + name]
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, value(name, shape))
    assert "torch" not in sys.modules


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_views_keep_their_offsets_and_strides(layout: str):
    arrays = read_pytorch(FIXTURES / f"state_views_{layout}.pt")
    base = np.arange(24, dtype=np.float32)
    expected = {
        "offset": base[5:9],
        "transposed": base.reshape(4, 6).T,
        "strided": base.reshape(4, 6)[1::2, ::3],
        "expanded": np.full((2, 3), 3.0),
        "scalar": np.float32(11),
        "empty": np.empty((0, 3)),
    }
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_every_element_type_is_read(layout: str):
    arrays = read_pytorch(FIXTURES / f"state_types_{layout}.pt")
    assert len(arrays) == 11
    for name, array in arrays.items():
        assert array.dtype.name == name
        truth = [False, True, True, True] if name == "bool" else [0, 1, 2, 100]
        assert array.astype(complex).tolist() == truth


def in_zip(path: Path, pickled: bytes, storages: dict[str, bytes], method: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression=method) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def in_sequence(path: Path, pickled: bytes, storages: dict[str, bytes]) -> Path:
    system = {"protocol_version": LEGACY_VERSION, "little_endian": True}
    head = [pickle.dumps(part, 2) for part in (LEGACY_MAGIC, LEGACY_VERSION, system)]
    tail = b"".join(struct.pack("<q", len(data) // 4) + data for data in storages.values())
    path.write_bytes(b"".join(head) + pickled + pickle.dumps(list(storages), 2) + tail)
    return path


LAYOUTS = {"zip": in_zip, "sequence": in_sequence}


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("write", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_nothing_that_a_pickle_names_is_run(tmp_path: Path, write):
    witness = tmp_path / "witness"
    command = f"echo run > {witness}"
    evil = {"state_dict": OrderedDict(w=Call(os.system, command))}
    pickle.loads(pickle.dumps(evil))
    assert witness.exists(), "the pickle does no harm even unguarded: the test would prove nothing"
    witness.unlink()
    path = write(tmp_path / "evil.pt", pickle.dumps(evil, 2), {})
    with pytest.raises(
        UnsafePickle, match=rf"evil\.pt is refused: its pickle names {os.system.__module__}\.system"
    ):
        read_pytorch(path)
    assert not witness.exists()


REFUSED = {  # behaviour: (opcodes, what the message names)
    "eval": (b"cbuiltins\neval\n(V1\ntR.", "builtins.eval"),
    "getattr": (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
    "reading a file": (b"cnumpy\nfromfile\n.", "numpy.fromfile"),
    "our own module": (b"cslth.interop.pytorch\npickle\n.", "slth.interop.pytorch.pickle"),
    "through an attribute": (
        b"\x80\x04\x8c\x0ctorch._utils\x8c\x27_rebuild_tensor_v2.__call__.__globals__\x93.",
        "torch._utils._rebuild_tensor_v2.__call__",
    ),
    "an object": (b"(itypes\nSimpleNamespace\n.", "types.SimpleNamespace"),
    "a module's source": (b"(Vmodule\nVx\nVy\nVz\ntQ.", "'module'"),
}


@pytest.mark.parametrize("opcodes, named", REFUSED.values(), ids=REFUSED.keys())
def test_other_globals_are_refused_by_name(tmp_path: Path, opcodes: bytes, named: str):
    with pytest.raises(UnsafePickle) as raised:
        read_pytorch(in_zip(tmp_path / "x.pt", opcodes, {}))
    assert named in str(raised.value)


def test_a_whole_module_is_refused():
    said = (
        r"torch\.nn\.modules\.container\.Sequential: it holds a whole module.*torch\.save\(model\.state_dict"
    )
    with pytest.raises(UnsafePickle, match=said):
        read_pytorch(FIXTURES / "state_module.pt")


ALTER = {
    "a rebuilding function": b"ctorch._utils\n_rebuild_tensor_v2\n",
    "an element type": b"ctorch\nFloatStorage\n",
    "a stand-in": b"cargparse\nNamespace\n",
    "a dict with a default": b"ccollections\ndefaultdict\n",
    "a container type": b"ccollections\nOrderedDict\n",
    "a type of Python's own": b"ctorch\nSize\n",
}


@pytest.mark.parametrize("target", ALTER.values(), ids=ALTER.keys())
@pytest.mark.parametrize("state", [b"}S'x'\nI1\ns", b"(N}S'x'\nI1\nst"], ids=["dict", "slots"])
def test_a_pickle_cannot_alter_what_it_names(tmp_path: Path, target: bytes, state: bytes):
    before = [dir(known) for known in KNOWN.values()]
    with pytest.raises(ValueError, match=r"not a readable PyTorch file: (?!it holds no state dict)"):
        read_pytorch(in_zip(tmp_path / "x.pt", target + state + b"b.", {}))
    assert [dir(known) for known in KNOWN.values()] == before


def tensor_pickle(count, offset, shape, strides) -> bytes:
    """A state dict {w: tensor}, written with opcodes: the numbers may be wrong at will."""
    numbers = b"".join(b"(" + b"".join(b"L%dL\n" % n for n in numbers) + b"t" for numbers in (shape, strides))
    storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nL%dL\ntQ" % count
    return (
        b"}S'w'\nctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"L%dL\n" % offset
        + numbers
        + b"I00\nNtRs."
    )


def test_a_written_tensor_is_read(tmp_path: Path):
    data = np.arange(6, dtype=np.float32)
    path = in_zip(tmp_path / "x.pt", tensor_pickle(6, 1, (2, 2), (3, 1)), {"0": data.tobytes()})
    np.testing.assert_array_equal(read_pytorch(path)["w"], [[1, 2], [4, 5]])


BROKEN = {  # behaviour: (count, offset, shape, strides)
    "past the end": (6, 1, (6,), (1,)),
    "far past the end": (6, 10**15, (1,), (1,)),
    "before the start": (6, -1, (2,), (1,)),
    "negative stride": (6, 5, (2,), (-1,)),
    "negative size": (6, 0, (-2,), (1,)),
    "strides missing": (6, 0, (2, 2), (1,)),
    "expanded without bound": (6, 0, (2**20, 2**20), (0, 0)),
    "storage longer than its bytes": (7, 0, (7,), (1,)),
    "storage shorter than its bytes": (5, 0, (5,), (1,)),
}


@pytest.mark.parametrize("write", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("numbers", BROKEN.values(), ids=BROKEN.keys())
def test_a_tensor_stays_inside_its_storage(tmp_path: Path, numbers: tuple, write):
    data = np.arange(6, dtype=np.float32).tobytes()
    with pytest.raises(ValueError, match=r"x\.pt is not a readable PyTorch file: .*(tensor|storage)"):
        read_pytorch(write(tmp_path / "x.pt", tensor_pickle(*numbers), {"0": data}))


@pytest.mark.parametrize("file", ["state_zip.pt", "state_legacy.pth"])
def test_damaged_files_are_named_and_never_crash(tmp_path: Path, file: str):
    whole = (FIXTURES / file).read_bytes()
    path, said = tmp_path / file, []
    for cut in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=file):
            read_pytorch(path)
    for at in range(0, len(whole), max(1, len(whole) // 120)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            read_pytorch(path)  # a changed number is a number still
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 20
    assert all(file in message and "\n" not in message for message in said)


def test_other_files_say_what_they_are(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds no state dict .*but \['epoch'\]"):
        read_pytorch(in_zip(tmp_path / "a.pt", pickle.dumps({"epoch": 3}, 2), {}))
    with pytest.raises(ValueError, match=r"holds no state dict .*but list"):
        read_pytorch(in_zip(tmp_path / "b.pt", pickle.dumps([1.0], 2), {}))
    with pytest.raises(ValueError, match=r"its entries are compressed"):
        read_pytorch(in_zip(tmp_path / "c.pt", b"}.", {}, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(tmp_path / "d.pt", "w") as archive:
        archive.writestr("m/data.pkl", "}.")
        archive.writestr("m/constants.pkl", "}.")
    with pytest.raises(
        ValueError, match=r"TorchScript archive, a program: .*torch\.jit\.load\(FILE\)\.state_dict"
    ):
        read_pytorch(tmp_path / "d.pt")
    (tmp_path / "e.pt").write_bytes(pickle.dumps({"w": 1.0}))
    with pytest.raises(ValueError, match=r"does not begin with PyTorch's magic number"):
        read_pytorch(tmp_path / "e.pt")


def test_a_dict_that_holds_itself_ends(tmp_path: Path):
    loop: dict = {}
    loop["state_dict"] = loop
    with pytest.raises(ValueError, match=r"holds no state dict"):
        read_pytorch(in_zip(tmp_path / "x.pt", pickle.dumps(loop, 2), {}))
