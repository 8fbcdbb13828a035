"""``slth inspect``: what it says is in a file is there, and the lines that it prints load the file."""

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import flax.serialization
import numpy as np
import onnx
import pytest
import safetensors.numpy

import slth
from experiments.targets import loaded
from slth import cli, nn
from slth.interop import read_arrays, save_network
from slth.interop.fitting import fits
from slth.interop.readers import read_tree
from slth.nn import zoo
from tests.experiments.test_compose import composed
from tests.interop.onnx_damage import audited, changed_bytes
from tests.interop.onnx_nets import Net

FIXTURES = Path(__file__).parents[1] / "fixtures"
DIGITS = read_arrays(FIXTURES / "digits_cnn.pth")
SPEC = zoo.build("digits_cnn", (8, 8, 1), 10, width=8)


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert cli.main(["inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def block(lines: list[str], title: str) -> list[str]:
    """The indented lines below the line that is, or begins with, a title."""
    at = next(i for i, line in enumerate(lines) if line.startswith(title))
    rest = lines[at + 1 :]
    end = next((i for i, line in enumerate(rest) if not line.startswith("  ")), len(rest))
    return [line.strip() for line in rest[:end]]


def rows(lines: list[str], title: str) -> set[tuple[str, str]]:
    """Names and shapes in the lines below a title."""
    cells = [line.split("  ") for line in block(lines, title)]
    return {(row[0], next(cell.strip() for cell in row[1:] if cell)) for row in cells}


def check_lines(lines: list[str], network: nn.Network, arrays=DIGITS) -> None:
    """The Python lines give a target, the shell line a run, with this network and these weights."""
    held: dict = {}
    exec("\n".join(block(lines, "python")), held)
    wanted = slth.Target.of(network, slth.interop.fit(network, arrays))
    assert held["spec"] == network
    np.testing.assert_array_equal(held["target"].params["conv1"]["kernel"], wanted.params["conv1"]["kernel"])
    words = shlex.split(block(lines, "shell")[0])
    assert words[:3] == ["python", "-m", "experiments.ticket"]
    cfg, spec, _ = composed(*words[3:])
    assert spec == network
    np.testing.assert_array_equal(
        loaded(cfg, spec)["conv1"]["kernel"], slth.interop.fit(network, arrays)["conv1"]["kernel"]
    )


def test_arrays_are_listed_as_they_are(capsys):
    lines = said(capsys, FIXTURES / "digits_cnn.pth")
    assert lines[0].endswith(f"PyTorch (torch.save), {(FIXTURES / 'digits_cnn.pth').stat().st_size:,} bytes")
    total = sum(array.size for array in DIGITS.values())
    assert rows(lines, f"arrays   12, of {total:,} numbers") == {(k, str(v.shape)) for k, v in DIGITS.items()}
    assert any(line.split() == ["conv1.weight", "(8,", "1,", "3,", "3)", "float32", "72"] for line in lines)
    check_lines(lines, SPEC)


def test_lines_of_an_odd_path_and_of_other_names_load_the_file(tmp_path: Path, capsys):
    path = tmp_path / 'a net=1, [x] ~"y".npz'
    new = {"conv1": "stem.c", "bn1": "stem.n", "conv2": "body(1)", "bn2": "body.n", "linear": "head"}
    arrays = {f"{new[k.split('.')[0]]}.{k.split('.')[1]}": v for k, v in DIGITS.items()}
    with path.open("wb") as file:
        np.savez(file, **arrays, **{"head_aux.table": np.ones(3)})
    nearest = said(capsys, path)
    assert "perhaps  --rename '^head\\.' linear." in nearest
    assert rows(nearest, "left over") == {(k, str(v.shape)) for k, v in arrays.items()} | {
        ("head_aux.table", "(3,)")
    }
    lines = said(capsys, path, "--ignore", "head_aux.*")
    assert next(line for line in lines if line.startswith("fits")).endswith(
        "with layers renamed by their shapes: see that they are right"
    )
    check_lines(lines, SPEC)


def test_what_does_not_fit_is_listed_shape_by_shape(tmp_path: Path, capsys):
    arrays = {name: array for name, array in DIGITS.items() if not name.startswith("bn2.running")}
    arrays |= {"linear.weight": np.ones((10, 65)), "extra.weight": np.ones((2, 3)), "extra.bias": np.ones(2)}
    np.savez(tmp_path / "net.npz", **arrays)
    lines = said(capsys, tmp_path / "net.npz")
    assert rows(lines, "missing") == {("bn2.running_mean", "(16,)"), ("bn2.running_var", "(16,)")}
    assert rows(lines, "left over") == {("extra.weight", "(2, 3)"), ("extra.bias", "(2,)")}
    assert block(lines, "wrong") == ["linear.weight has shape (10, 65), expected (10, 64)"]
    assert block(lines, "fits     no named spec")[0].split("  ")[1:] == ["9 of 12", "9 of 12"]
    assert "python" not in lines


def test_of_two_sets_that_fit_the_first_is_taken_and_said(tmp_path: Path, capsys):
    tree = {key: dict(DIGITS) for key in ("ema", "state_dict")} | {"optimizer": {"step": np.ones(1)}}
    (tmp_path / "net.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    lines = said(capsys, tmp_path / "net.msgpack")
    assert lines[1:4] == [
        "set      state_dict: 12 arrays",
        "set      ema: 12 arrays",
        "beside   optimizer: no parameters",
    ]
    assert "choose   one set of parameters: state_dict, ema fit alike; here the first" in lines
    check_lines(lines, SPEC)
    assert "key='state_dict'" in block(lines, "python")[-1]
    lines = said(capsys, tmp_path / "net.msgpack", "--key", "ema")
    assert [line for line in lines if line.startswith("set ")] == ["set      ema: 12 arrays"]
    assert "key='ema'" in block(lines, "python")[-1]
    check_lines(lines, SPEC)


# Networks of other depths, widths, skips and images than the builders' own.
SPECS = {
    "lenet, other images": zoo.lenet((40, 40, 3), 7),
    "conv_mnist": zoo.conv_mnist(),
    "digits_resnet, narrow": zoo.digits_resnet((32, 32, 1), 10, width=4),
    "projection, another depth": zoo.resnet_cifar(8, (32, 32, 3), 5, width=4, skip="projection"),
    "pre-activation, another depth": zoo.resnet_cifar(14, (32, 32, 3), 10, width=4, pre_activation=True),
    "bottlenecks, another depth": zoo.resnet_cifar(11, (32, 32, 3), 10, width=4, bottleneck=True),
    "resnet20, 100 classes": zoo.build("resnet20", (32, 32, 3), 100, width=8),
    "resnet20_sigmoid": zoo.build("resnet20_sigmoid", (32, 32, 3), 10),
    "mlperf_resnet8": zoo.mlperf_resnet8(),
    "mlp": zoo.mlp((28, 28, 1), 10, widths=(30, 20, 25)),
}


@pytest.mark.parametrize("network", SPECS.values(), ids=SPECS.keys())
def test_a_spec_is_found_by_the_shapes_of_its_arrays(network: nn.Network):
    shapes = nn.parameter_shapes(network).items()
    best = fits({path: np.zeros(shape, np.float16) for path, shape in shapes})[0]
    assert best.match.fits
    assert best.guess.network == network
    assert eval(best.guess.call, {"zoo": zoo}) == network
    assert best.matched == best.total == best.shaped == len(shapes)


PUBLISHED = {
    "resnet20-12fca82f.th": "zoo.build('resnet20', (32, 32, 3), 10): all 97 arrays",
    "resnet20_cifar10_relu.safetensors": "zoo.build('resnet20', (32, 32, 3), 10): all 97 arrays",
    "resnet20_cifar10_sigmoid.safetensors": "zoo.build('resnet20_sigmoid', (32, 32, 3), 10): all 114 arrays",
    "conv_mnist_relu.safetensors": "zoo.build('conv_mnist', (28, 28, 1), 10): all 6 arrays",
    "resnet8_mlperf_tiny.npz": "zoo.build('mlperf_resnet8', (32, 32, 3), 10): all 48 arrays",
}


@pytest.mark.parametrize("file, fit", PUBLISHED.items())
def test_published_files_are_known(data_dir: Path, capsys, file: str, fit: str):
    lines = said(capsys, data_dir / "targets" / file)
    assert f"fits     {fit}" in lines
    assert block(lines, "shell")[0].endswith(f"target.checkpoint={data_dir / 'targets' / file}")


def test_onnx_files_have_their_layers_or_the_refusal(tmp_path: Path, capsys):
    net = Net((1, 8, 8))
    onnx.save(
        net.model(net.add("Relu", net.conv("x", 1, 3, 3, 3, name="features.0.weight"))), tmp_path / "a.onnx"
    )
    lines = said(capsys, tmp_path / "a.onnx")
    assert rows(lines, "layers") >= {("features.0", "Conv")}
    held: dict = {}
    exec("\n".join(block(lines, "python")), held)
    assert held["target"].network.output_shape == (6, 6, 3)
    assert "target=file" in block(lines, "shell")[0]
    onnx.save(net.model(net.add("Erf", net.add("Softsign", "x"))), tmp_path / "b.onnx")
    lines = said(capsys, tmp_path / "b.onnx")
    assert any(line.startswith("layers   refused: checkpoint ") and "Erf" in line for line in lines)


def test_files_of_slth_itself_are_known(tmp_path: Path, capsys, getkey):
    lines = said(capsys, FIXTURES / "ticket_v1.safetensors")
    kept = slth.Ticket.load(FIXTURES / "ticket_v1.safetensors")
    assert f"{kept.nonzero:,} of {kept.parameters:,} weights kept" in lines[1]
    network = nn.Network((4,), (nn.Dense("fc", 2),))
    save_network(tmp_path / "net.safetensors", network, nn.init(network, getkey()), factor=0.5)
    lines = said(capsys, tmp_path / "net.safetensors")
    assert lines[1].endswith("outputs are multiplied by 0.5")
    held: dict = {}
    exec("\n".join(block(lines, "python")), held)
    assert (held["network"], held["factor"]) == (network, 0.5)


def test_names_cannot_write_to_the_terminal(tmp_path: Path, capsys):
    np.savez(tmp_path / "net.npz", **{"\x1b[2Jevil.weight": np.ones((2, 2)), "b\nc": np.ones(1)})
    assert cli.main(["inspect", str(tmp_path / "net.npz")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"'\x1b[2Jevil.weight'" in out
    assert r"'b\nc'" in out


READ = (
    "state_zip.pt",
    "foreign_beside.pth.tar",
    "foreign_pruned.pt",
    "state_types_zip.pt",
    "foreign_bfloat16.pt",
)


@pytest.mark.parametrize("path", sorted(FIXTURES.iterdir()), ids=lambda path: path.name)
def test_every_file_is_read_or_refused_in_one_line(capsys, path: Path):
    code = cli.main(["inspect", str(path)])
    out, error = capsys.readouterr()
    try:
        read_tree(path)
    except ValueError:
        assert (code, out) == (1, "")
        assert error.startswith("error: checkpoint ")
        assert error.count("\n") == 1
    else:
        assert (code, error) == (0, "")
        assert "\narrays   " in out or "\nholds " in out
    assert code == 0 or path.name not in READ


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_in_one_line_and_run_nothing(tmp_path: Path, capsys):
    held = {name: np.ascontiguousarray(array) for name, array in DIGITS.items()}
    contents = [
        *((FIXTURES / name).read_bytes() for name in ("digits_cnn.pth", "state_legacy.pth")),
        safetensors.numpy.save(held),
        flax.serialization.msgpack_serialize(held),
    ]
    codes = []
    for seed in range(40):
        path = tmp_path / "net"
        path.write_bytes(changed_bytes(contents[seed % 4], np.random.default_rng(seed)))
        with audited() as events:
            codes.append(cli.main(["inspect", str(path)]))
        out, error = capsys.readouterr()
        assert events == []
        assert error.count("\n") == codes[-1]
        assert out.startswith("file ") or codes[-1] == 1
    assert 5 < sum(codes) < 35


REFUSED = {
    "no such file": (["none.pt"], r"error: checkpoint none\.pt is not there"),
    "no such key": ([str(FIXTURES / "digits_cnn.pth"), "--key", "ema"], "key 'ema': no array's name begins"),
    "no expression": (
        [str(FIXTURES / "digits_cnn.pth"), "--rename", "(", "x"],
        r"error: rename '\(' is no regular expression",
    ),
}


@pytest.mark.parametrize("arguments, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_done_is_one_line(capsys, arguments: list[str], message: str):
    assert cli.main(["inspect", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["inspect", "--help"], ["zoo", "--help"], ["zoo", "verify", "-h"]]
)
def test_help_says_what_there_is(capsys, arguments: list[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: slth")
    if arguments == ["inspect", "--help"]:
        assert all(option in out for option in ("--key", "--rename", "--ignore", "examples:"))


def test_the_console_command_is_there(root: Path):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, name = project["project"]["scripts"]["slth"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_python_runs_the_command_and_a_closed_pipe_is_no_error(root: Path):
    shell = f"{shlex.quote(sys.executable)} -m slth inspect tests/fixtures/digits_cnn.pth | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("file     tests/fixtures/digits_cnn.pth: PyTorch")


def test_the_guide_shows_what_is_printed(root: Path, capsys, monkeypatch):
    monkeypatch.chdir(root)
    lines = said(capsys, "tests/fixtures/digits_cnn.pth")
    page = (root / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    shown = (
        page.partition("$ slth inspect tests/fixtures/digits_cnn.pth\n")[2].partition("\n```")[0].splitlines()
    )
    assert len(shown) > 10
    assert [line for line in shown if line.strip() != "..." and line not in lines] == []
