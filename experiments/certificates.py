"""Certificates of a ticket run: domains from the config, bounds held against errors that inputs show."""

import logging
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from omegaconf import DictConfig

from experiments.settings import field
from slth.certificate import Domain, ball, box, certify, examples
from slth.certificate.theorem import theorem
from slth.construction import Construction, Solver
from slth.data import Data
from slth.report import Proof

LOG = logging.getLogger(__name__)
NAMES = ("box", "data", "ball")
DRAWN = 64
"""Inputs drawn from a box or balls, whose errors no bound may be below either."""

Images = Float[np.ndarray, "n *shape"]
Outputs = Float[np.ndarray, "n outputs"]


def proofs_of(
    cfg: DictConfig,
    data: Data,
    construction: Construction,
    solver: Solver,
    calibration: Images | None,
    goal: Outputs,
    off: Outputs,
    errors: Callable[[Images], Outputs],
) -> tuple[Proof, ...]:
    """A `Proof` for each domain that ``certificate.name`` names; none for "off".

    Args:
      solver, calibration: what the construction had.
      goal, off: the target's outputs on the test images, and |target - ticket| there.
      errors: |target - ticket| at other inputs, by the float32 networks.
    Raises: ValueError naming the setting that is wrong.
    """
    proofs = []
    for name in names_of(cfg):
        begun = time.perf_counter()
        with field("certificate"):
            domain = domain_of(cfg, name, data)
            made = certify(construction, domain, cfg.certificate.method)
            budgets = None
            if cfg.construction.depth == "L+1":
                budgets = theorem(
                    construction,
                    domain,
                    epsilon=cfg.certificate.epsilon,
                    delta=cfg.certificate.delta,
                    calibration=calibration,
                    complete=not solver.solves_rows and not cfg.refine.steps,
                )
        images = slice(cfg.certificate.images)
        seen, sets = off[images], np.arange(len(off[images]))
        if name != "data":
            x, drawn = draw(domain.check(data.shape))
            seen, sets = np.concatenate([seen, errors(x)]), np.concatenate([sets, drawn])
        certified = margin = None
        if construction.target.classes:
            top = np.sort(goal[images], 1)
            certified = float(made.certified(goal[images]).mean())
            margin = float((top[:, -1] - top[:, -2]).max())
        bound = made.bound[sets % len(made.bound)]
        proof = Proof(
            name,
            made,
            budgets,
            float(seen.max()),
            len(seen),
            int((~(seen <= bound)).reshape(len(seen), -1).any(1).sum()),  # nor is a NaN within a bound
            certified,
            margin,
            time.perf_counter() - begun,
        )
        LOG.info(
            *(
                "%s, %s: bound %.4g, largest error found %.4g",
                name,
                made.domain,
                made.bound.max(),
                proof.error,
            )
        )
        proofs.append(proof)
    return tuple(proofs)


def names_of(cfg: DictConfig) -> tuple[str, ...]:
    """The domains that ``certificate.name`` asks for.

    Raises: ValueError for settings that no certificate can have.
    """
    asked = cfg.certificate
    if asked.name == "off":
        return ()
    names = tuple(str(asked.name).split("+"))
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise ValueError(
            f"certificate.name: {unknown[0]!r} is unknown: choose off or some of {'+'.join(NAMES)}"
        )
    if None not in (asked.low, asked.high) and not asked.low < asked.high:
        raise ValueError(f"certificate.low: expected a number below {asked.high}, got {asked.low}")
    if not asked.delta < 1:
        raise ValueError(f"certificate.delta: expected a probability below 1, got {asked.delta}")
    if "ball" in names and asked.radius is None:
        raise ValueError("certificate.radius: balls need one, such as certificate.radius=0.01")
    return names


def domain_of(cfg: DictConfig, name: str, data: Data) -> Domain:
    """The domain of this name around the test images, in the units that the network reads."""
    asked = cfg.certificate
    images = data.test_images[: asked.images]
    if name == "data":
        return examples(images)
    least = data.low if asked.low is None else asked.low
    largest = data.high if asked.high is None else asked.high
    mean, std = (np.asarray(a, np.float64) for a in (data.mean, data.std))
    # Pixels become float32 numbers, which may lie a rounding outside of the range in float64.
    low, high = (
        np.nextafter(np.float32((edge - mean) / std), np.float32(side * np.inf)).astype(np.float64)
        for edge, side in ((least, -1), (largest, 1))
    )
    if name == "ball":
        return ball(images, asked.radius / std, low, high)
    outside = ((images < low) | (images > high)).reshape(len(images), -1).any(1)
    if outside.any():
        raise ValueError(
            f"certificate.low, high: {int(outside.sum())} of {len(images)} test images have pixels outside of"
            f" [{least:g}, {largest:g}]: widen the box"
        )
    return box(low, high)


def draw(domain: Domain) -> tuple[Images, np.ndarray]:
    """`DRAWN` inputs of the domain and the set that each belongs to: insides and corners in turn."""
    rng = np.random.default_rng(0)
    sets = np.arange(DRAWN) % len(domain.low)
    low, high = domain.low[sets], domain.high[sets]
    share = rng.random(low.shape)
    upper = rng.random((DRAWN, *(1,) * (low.ndim - 1)))  # share of high entries
    share[::2] = share[::2] < upper[::2]
    return (low + share * (high - low)).astype(np.float32), sets
