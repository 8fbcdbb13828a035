"""``python docs/make_pictures.py [NAME ...]`` draws docs/images/tutorial for docs/tutorial.md.

The examples of the page are run first, and the pictures are drawn from their values: a picture cannot say
anything else than the page does.
"""

import doctest
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from slth.report.figures import picture

DOCS = Path(__file__).resolve().parent
PAGE, FOLDER = DOCS / "tutorial.md", DOCS / "images" / "tutorial"
BLUE, ORANGE, GREEN, RED, PALE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#e4e4e4"
"""Colours of Okabe and Ito, which colour-blind readers can tell apart, and a grey for what is pruned."""
WIDTH = 7.0

Values = dict[str, Any]


def values_of(page: Path) -> Values:
    """The names that the examples of a page define, run in order."""
    values: Values = {}
    for example in doctest.DocTestParser().get_examples(page.read_text(encoding="utf-8")):
        exec(compile(example.source, str(page), "exec"), values)
    return values


def show(axes: Axes, values: Any, title: str, reach: float | None = None) -> None:
    """A small image; negative numbers orange, positive ones purple where a reach is given."""
    image = np.asarray(values, float).squeeze()
    if reach is None:
        axes.imshow(image, cmap="gray_r")
    else:
        axes.imshow(image, cmap="PuOr", vmin=-reach, vmax=reach)
    rows, columns = image.shape
    axes.set_title(f"{title}\n{rows} × {columns}", loc="center")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#9aa0a6", linewidth=0.6)
    axes.grid(False)


def boxes(axes: Axes, y: float, start: float, numbers: Any, colour: str, name: str) -> None:
    """Numbers in a row of boxes, with a name in front."""
    axes.text(-0.3, y + 0.4, name, ha="right", va="center")
    for i, number in enumerate(np.ravel(numbers)):
        axes.add_patch(Rectangle((start + i, y), 0.96, 0.8, facecolor=colour, alpha=0.35, edgecolor=colour))
        axes.text(start + i + 0.48, y + 0.4, f"{float(number):g}", ha="center", va="center")


def blank(axes: Axes, width: float, height: float, title: str) -> None:
    """Axes without a frame."""
    axes.set(xlim=(-2.6, width), ylim=(height, -0.3), aspect="equal", title=title)
    axes.axis("off")


def correlation(figure: Figure, v: Values) -> None:
    """Input, kernel and product, for both products."""
    x, w = v["x"], v["w"]
    pairs = (
        ("Cross-correlation: w as it is", w, v["correlate"](x, w)),
        ("Convolution: w flipped", v["flip"](w), v["convolve"](x, w, "valid")),
    )
    for axes, (title, kernel, product) in zip(figure.subplots(1, 2), pairs, strict=True):
        blank(axes, 4.2, 3.6, title)
        boxes(axes, 0, 0, x, BLUE, "x")
        boxes(axes, 1.1, 0, kernel, ORANGE, "kernel at\nposition 0")
        boxes(axes, 2.6, 0, product, GREEN, "result")
        axes.annotate("", (3, 1.5), (2.1, 1.5), arrowprops={"arrowstyle": "->", "color": ORANGE})
        axes.text(3.1, 1.5, "slides", va="center")


def padding(figure: Figure, v: Values) -> None:
    """A digit under one kernel, in three ways."""
    convolve, x, kernel, pad = v["correlate_channels"], v["one_image"], v["kernel"], v["pad"]
    results = (
        (convolve(x, kernel), "no padding"),
        (convolve(x, kernel, padding=pad), "padding 1"),
        (convolve(x, kernel, stride=(2, 2), padding=pad), "padding 1, stride 2"),
    )
    axes = figure.subplots(1, 4)
    show(axes[0], x, "input")
    reach = float(abs(np.asarray(results[1][0])).max())
    for one, (image, title) in zip(axes[1:], results, strict=True):
        show(one, image, title, reach)


def gradients(figure: Figure, v: Values) -> None:
    """Both gradients, twice."""
    import jax

    x, w, dy = v["x"], v["w"], v["dy"]
    pairs = (
        ("Gradient of the kernel", "tap r", "dw[r]", "x ⋆ dy", 1, v["correlate"](x, dy)),
        ("Gradient of the input", "position j", "dx[j]", "dy ∗ w", 0, v["convolve"](dy, w, "full")),
    )
    for axes, (title, place, name, how, number, ours) in zip(figure.subplots(1, 2), pairs, strict=True):
        theirs = jax.grad(v["loss"], argnums=number)(x, w)
        places = np.arange(len(ours))
        axes.bar(places - 0.2, theirs, 0.38, color=BLUE, label="jax.grad")
        axes.bar(places + 0.2, ours, 0.38, color=ORANGE, label=how)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(title=title, xlabel=place, ylabel=name, xticks=places)
        axes.legend(loc="upper left")


def pooling(figure: Figure, v: Values) -> None:
    """A digit and its pools."""
    axes = figure.subplots(1, 3)
    images = [v["one_image"]] + [v["nn"].Pool(k, (2, 2)).apply({}, v["one_image"]) for k in ("max", "mean")]
    low, high = float(images[0].min()), float(images[0].max())
    for one, image, title in zip(axes, images, ("input", "largest of 2 × 2", "mean of 2 × 2"), strict=True):
        show(one, image, title)
        one.images[0].set_clim(low, high)
    for line in (1.5, 3.5, 5.5):
        axes[0].axhline(line, color=ORANGE, linewidth=1)
        axes[0].axvline(line, color=ORANGE, linewidth=1)


def residual(figure: Figure, v: Values) -> None:
    """What the skip carries, what the branch computes, their sum."""
    x, f = np.asarray(v["one_image"]), np.asarray(v["f_of_x"])
    total = np.asarray(v["nn"].apply(v["block"], v["params"], v["one_image"]))
    reach = float(max(abs(x).max(), abs(f).max(), abs(total).max()))
    axes = figure.subplots(1, 3)
    for one, image, title in zip(
        axes, (x, f, total), ("skip: x", "branch: f(x)", "block: f(x) + x"), strict=True
    ):
        show(one, image, title, reach)
    figure.colorbar(axes[2].images[0], ax=axes, label="value", shrink=0.8)


def subset_sum(figure: Figure, v: Values) -> None:
    """Which of twelve numbers are kept, and how the error falls."""
    left, right = figure.subplots(1, 2)
    numbers, kept = v["numbers"], v["b"][:, -1]
    places = np.arange(1, len(numbers) + 1)
    left.bar(places[kept], numbers[kept], color=BLUE, label="kept")
    left.bar(places[~kept], numbers[~kept], color=PALE, label="dropped")
    left.axhline(0, color="black", linewidth=0.6)
    left.set(title="One weight, m = 12", xlabel="k", ylabel="random number $v_k$", xticks=places)
    left.set_ylim(-1.1, 1.55)
    left.legend(loc="upper left", ncols=2)
    rng = np.random.default_rng(2)
    weights = rng.uniform(-1, 1, 1000).astype(np.float32)
    variables = rng.uniform(-1, 1, (12, 1000)).astype(np.float32)
    errors = [abs(np.asarray(v["solve"](variables[:m], weights, "best").error)) for m in places]
    right.semilogy(places, [np.median(e) for e in errors], color=BLUE, marker="o", label="median")
    nine = [np.quantile(e, 0.9) for e in errors]
    right.semilogy(places, nine, color=ORANGE, marker="s", linestyle="--", label="90 % are below")
    right.set(title="1,000 weights", xlabel="m, random numbers a weight", ylabel="error |w − sum|")
    right.set_xticks(places)
    right.legend()


def layer(figure: Figure, v: Values) -> None:
    """A mask, and what the layer computes with it."""
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    axes = top.subplots()
    copy = 0
    weights = (v["mask"] * v["v"])[:, :, copy].T
    shown = np.where(v["mask"][:, :, copy].T, weights, np.nan)
    axes.imshow(np.ones_like(weights), cmap="Greys", vmin=0, vmax=8)
    drawn = axes.imshow(shown, cmap="PuOr", vmin=-1, vmax=1)
    axes.axvline(v["N"] - 0.5, color="black", linewidth=1)
    axes.set(
        xlabel="univariate channel (left of the line α > 0, right of it α < 0)", ylabel="tap of the kernel"
    )
    axes.set(title="Mask of copy 1: kept weights v in colour, pruned ones grey", yticks=range(0, 9, 2))
    axes.grid(False)
    top.colorbar(drawn, ax=axes, label="weight v", shrink=0.9)
    goal, one = np.asarray(v["goal"])[0, :, :, 0], np.asarray(v["copies"])[0, :, :, copy]
    reach = float(abs(goal).max())
    row = bottom.subplots(1, 4)
    show(row[0], v["one_image"], "input")
    show(row[1], goal, "target's layer", reach)
    show(row[2], one, "ticket, copy 1", reach)
    show(row[3], (one - goal) * 10_000, "difference × 10,000", reach)
    bottom.colorbar(row[3].images[0], ax=row, label="value", shrink=0.8)


def network(figure: Figure, v: Values) -> None:
    """Outputs side by side, and what is kept of each layer."""
    from slth.nn.graph import by_layer

    left, right = figure.subplots(1, 2)
    x, made = v["digits"].test_images, v["made"]
    target, ticket = np.asarray(v["target"](x)).ravel(), np.asarray(made.ticket(x)).ravel()
    ends = [target.min(), target.max()]
    left.plot(ends, ends, color=ORANGE, label="equal")
    left.scatter(target, ticket, s=5, color=BLUE, alpha=0.4, linewidths=0, label="one output of one image")
    left.set(title="360 test images", xlabel="output of the target", ylabel="output of the ticket")
    left.legend(loc="upper left")
    layers = by_layer(made.ticket.mask)
    counts = {
        path: (sum(int(np.sum(m)) for m in own.values()), sum(np.size(m) for m in own.values()))
        for path, own in layers.items()
    }
    order = ["univariate", "conv", "linear"]
    kept, all_of = (np.array([counts[name][i] for name in order]) for i in (0, 1))
    places = np.arange(len(order))
    right.barh(places, all_of, color=PALE, label="in the source")
    right.barh(places, kept, color=BLUE, height=0.5, label="kept")
    for y, few, many in zip(places, kept, all_of, strict=True):
        right.text(many * 1.15, y, f"{few:,} of {many:,}", va="center", fontsize=8)
    right.set(xscale="log", xlim=(10, 1e7), ylim=(2.6, -1.0), xlabel="number of weights", yticks=places)
    right.set_yticklabels(order)
    right.set_title("Weights by layer of the source")
    right.legend(loc="upper left", ncols=2)


def certificate(figure: Figure, v: Values) -> None:
    """Error, bound and lead, image by image."""
    axes = figure.subplots()
    outputs, bound = np.asarray(v["outputs"], float), float(v["proof"].bound.max())
    largest = np.sort(outputs, 1)
    lead = (largest[:, -1] - largest[:, -2]) / 2
    order = np.argsort(lead)
    found = np.asarray(v["found"]).max(1)[order]
    certified = np.asarray(v["proof"].certified(outputs))
    places, sure = np.arange(len(order)), certified[order]
    lead = lead[order]
    axes.semilogy(places[sure], lead[sure], "D", color=GREEN, label="half of the lead, certified")
    axes.semilogy(places[~sure], lead[~sure], "^", color=RED, label="half of the lead, not certified")
    axes.axhline(bound, color=ORANGE, linewidth=2, label="largest bound")
    axes.semilogy(places, found, "o", color=BLUE, label="largest error that was found")
    axes.set(xlabel="test image, in the order of the lead", ylabel="difference of two outputs")
    axes.set_title(f"{certified.sum()} of {len(order)} test images are certified")
    figure.legend(loc="outside lower center", ncols=2, markerscale=1.5)


PICTURES: dict[str, tuple[Callable[[Figure, Values], None], float]] = {
    "correlation": (correlation, 2.4),
    "padding": (padding, 2.3),
    "gradients": (gradients, 2.8),
    "pooling": (pooling, 2.8),
    "residual": (residual, 2.7),
    "subset_sum": (subset_sum, 3.0),
    "layer": (layer, 4.6),
    "network": (network, 3.2),
    "certificate": (certificate, 3.7),
}
"""Each picture's function and height in inches."""


def main(names: list[str]) -> None:
    """Draw the pictures of these names, or all of them."""
    if unknown := set(names) - set(PICTURES):
        raise SystemExit(f"no picture {', '.join(sorted(unknown))}: choose from {', '.join(PICTURES)}")
    values = values_of(PAGE)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or PICTURES:
        draw, height = PICTURES[name]
        file = FOLDER / f"{name}.png"
        with picture(file, WIDTH, height) as figure:
            draw(figure, values)
        with Image.open(file) as image:  # so many colours are enough, and make half the bytes
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
        print(f"{file.relative_to(DOCS.parent)}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
