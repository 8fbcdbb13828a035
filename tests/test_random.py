"""The generator: its bits, its grid and its statistics.

Keys are fixed, so a test gives the same answer each time. Its false-alarm rate is the probability
that an ideal generator would have failed it for a key drawn at random; it was fixed beforehand.
"""

import hashlib
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from slth import random

ALARM = 1e-4  # false-alarm rate of each statistical test, all its comparisons together
KEY = random.key(7, "test")
WORDS = st.integers(0, 2**32 - 1)


def reference(key, index):
    """The formula of the module's docstring in Python's integers, one index at a time."""

    def mix(x):
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = (x ^ (x >> shift)) * factor % 2**32
        return x ^ (x >> 16)

    high, low = divmod(index, 2**32)
    s1 = mix(high ^ int(key[1]))
    s0 = mix((s1 + int(key[0])) % 2**32)
    a = mix(low ^ s0)
    return (mix((a + s1) % 2**32) + a) % 2**32


def bits_at(key, low, high=0):
    """The 32 bits at each index ``high * 2^32 + low``; the halves broadcast."""
    return random._hash(jnp.asarray(low, jnp.uint32), *random._subkeys(key, jnp.asarray(high, jnp.uint32)))


def bits(key, count, stride=1):
    low = np.arange(count, dtype=np.uint32) * np.uint32(stride)
    return np.asarray(jax.jit(bits_at)(key, low))


def z_limit(comparisons):
    """The |z| that the largest of so many standard normals passes with probability ALARM."""
    return -NormalDist().inv_cdf(ALARM / comparisons / 2)


def chi_square_p(counts):
    return stats.chisquare(counts.ravel()).pvalue


def neighbours_p(words):
    """Chi-square of pairs of consecutive words, 64 x 64 cells by their upper bits."""
    cell = (words >> 26).reshape(-1, 2)
    return chi_square_p(np.bincount(cell[:, 0] * 64 + cell[:, 1], minlength=4096))


def collisions_p(words):
    """Two-sided p of the number of equal pairs, Poisson when words are independent."""
    _, counts = np.unique(words, return_counts=True)
    pairs = int((counts * (counts - 1) // 2).sum())
    law = stats.poisson(words.size * (words.size - 1) / 2**33)
    return 2 * min(law.cdf(pairs), law.sf(pairs - 1))


def largest_stream_z(x):
    """Largest |z| of the streams' correlations, aligned and shifted by an index, and means."""
    pairs = np.triu_indices(len(x), 1)
    aligned, shifted = x @ x.T, x @ np.roll(x, 1, axis=1).T
    z = np.concatenate([aligned[pairs] * 3, shifted[pairs] * 3, x.sum(1) * np.sqrt(3)])
    return np.abs(z).max() / np.sqrt(x.shape[1])


def sha256(x):
    return hashlib.sha256(np.asarray(x).tobytes()).hexdigest()[:16]


# The same bits everywhere


@settings(max_examples=100, deadline=None)
@given(k0=WORDS, k1=WORDS, low=WORDS, high=WORDS)
def test_bits_are_the_formula(k0, k1, low, high):
    key = np.array([k0, k1], np.uint32)
    assert int(bits_at(key, low, high)) == reference(key, high * 2**32 + low)
    in_arrays = bits_at(key, np.array([low], np.uint32), np.array([high], np.uint32))
    assert int(in_arrays[0]) == reference(key, high * 2**32 + low)


def test_bits_never_change():
    # A ticket stores a seed, not a source: a change here makes every ticket file unreadable.
    key = random.key(2**64 - 1, "layer", "kernel")
    assert sha256(bits_at(key, np.arange(4096, dtype=np.uint32), 3)) == "f00811ddc1d1a125"
    assert sha256(random.uniform(key, (4096,))) == "9b15cffeba787642"
    assert sha256(random.normal(key, (4096,))) == "c0a26b31df1494d7"
    assert sha256(random._TABLE) == "bf30c753ac2837ac"


@pytest.mark.parametrize(
    "draw, convert", [(random.uniform, random.as_uniform), (random.normal, random.as_normal)]
)
def test_a_slice_is_a_slice_of_the_whole(draw, convert):
    whole = np.asarray(draw(KEY, (6, 5, 4)))
    order = np.random.default_rng(0).permutation(120).astype(np.uint32)
    shuffled = np.asarray(jax.jit(lambda key: convert(bits_at(key, order)))(KEY))
    np.testing.assert_array_equal(shuffled, whole.ravel()[order])
    np.testing.assert_array_equal(draw(KEY, (4, 5, 4), start=40), whole[2:])
    assert draw(KEY, ()) == whole[0, 0, 0]
    assert draw(KEY, (0, 3)).shape == (0, 3)


@pytest.mark.parametrize("start", [2**31 - 5, 2**32 - 5, 2**32, 3 * 2**32 - 1, 2**64 - 10])
def test_slices_across_words(start):
    values = np.asarray(random.uniform(KEY, (10,), start=start)) * 2**24
    expected = [(reference(KEY, start + i) ^ 2**31) // 2**7 - 2**24 for i in range(10)]
    np.testing.assert_array_equal(values, expected)


def test_no_start_and_no_key_compiles_anew():
    random.uniform(KEY, (11, 3))
    compiled = random._draw._cache_size()
    random.uniform(random.key(8, "other"), (11, 3), start=2**40)
    assert random._draw._cache_size() == compiled
    random.uniform(KEY, (3, 11))
    assert random._draw._cache_size() == compiled + 1  # the count can rise


def test_vmap_over_keys():
    keys = np.stack([random.key(0, f"layer{i}") for i in range(3)])
    drawn = jax.vmap(lambda key: random.normal(key, (8,)))(keys)
    np.testing.assert_array_equal(drawn, np.stack([random.normal(key, (8,)) for key in keys]))


def test_x64_changes_nothing():
    plain = np.asarray(random.normal(KEY, (256,)))
    with jax.enable_x64(True):
        wide = random.normal(KEY, (256,))
    assert wide.dtype == jnp.float32
    np.testing.assert_array_equal(wide, plain)


# Keys and refusals


def test_keys_tell_names_and_seeds_apart():
    names = [(), ("",), ("", ""), ("a",), ("ab", "c"), ("a", "bc"), ("abc",), ("a", "b", "c")]
    seeds = [0, 1, 2**32, 2**64 - 1]
    keys = {tuple(random.key(seed, *name).tolist()) for seed in seeds for name in names}
    assert len(keys) == len(seeds) * len(names)
    assert random.key(np.int64(3), "a").tolist() == random.key(3, "a").tolist()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_key_refuses_seeds_out_of_range(seed):
    with pytest.raises(ValueError, match=rf"seed must be in \[0, 2\^64\), got {seed}"):
        random.key(seed)


@pytest.mark.usefixtures("unchecked")
def test_refusals_name_the_value():
    with pytest.raises(TypeError, match="names of a key must be strings, got 3"):
        random.key(0, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        random.key(0.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"2\^32 values .* got \(65537, 65536\)"):
        random.uniform(KEY, (65537, 65536))
    with pytest.raises(ValueError, match=r"no negative length, got \(-1,\)"):
        random.normal(KEY, (-1,))
    with pytest.raises(ValueError, match=f"start {2**64 - 1} and 2 values"):
        random.uniform(KEY, (2,), start=2**64 - 1)


# The grid


def test_uniform_is_on_the_grid_and_fills_its_range():
    units = np.asarray(random.uniform(KEY, (2**22,))).astype(np.float64) * 2**24
    np.testing.assert_array_equal(units, np.round(units))
    assert units.min() >= -(2**24)
    assert units.max() <= 2**24 - 1
    # 2^22 draws: the extremes lie further in than 2^7 units with probability exp(-16) each.
    assert units.min() < -(2**24) + 2**7
    assert units.max() > 2**24 - 2**7
    assert {int(u) & 1 for u in units[:64]} == {0, 1}  # the last place is used


def test_uniform_reaches_both_ends():
    ends = jnp.array([0x80000000, 0x7FFFFFFF, 0, 0xFFFFFFFF], jnp.uint32)
    assert (random.as_uniform(ends) * 2**24).tolist() == [-(2**24), 2**24 - 1, 0, -1]


def test_normal_is_on_the_grid():
    units = np.asarray(random.normal(KEY, (2**18,))).astype(np.float64) * 2**24
    np.testing.assert_array_equal(units, np.round(units))


def test_snap():
    x = np.array([0.3, -0.3, 1.7, 2.0**-25, 3 * 2.0**-25, 2.0**-24, 0.0], np.float32)
    exact = np.round(x.astype(np.float64) * 2**24) / 2**24  # NumPy's round is ties-to-even
    np.testing.assert_array_equal(random.snap(x), exact)


@pytest.mark.parametrize("draw", [random.uniform, random.normal])
def test_scaled_draws_are_the_same_however_compiled(draw):
    # Once through XLA as one program, which may reorder the constant factors, and once in NumPy.
    scale = np.float32(0.2357022)
    compiled = jax.jit(lambda key: random.snap(scale * draw(key, (4096,))))(KEY)
    product = scale * np.asarray(draw(KEY, (4096,)))
    exact = np.round(product.astype(np.float64) * 2**24) / 2**24
    np.testing.assert_array_equal(compiled, exact)


# Statistics of the bits


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_bytes_are_uniform(shift):
    # 2^20 values, 256 cells, chi-square; alarm 1e-4.
    counts = np.bincount((bits(KEY, 2**20) >> shift) & 255, minlength=256)
    assert chi_square_p(counts) > ALARM


def test_bits_are_balanced_and_independent():
    # 2^20 values: 32 balances and 496 agreements of two bits, each a z; alarm 1e-4 in all.
    signs = 1.0 - 2.0 * ((bits(KEY, 2**20)[:, None] >> np.arange(32, dtype=np.uint32)) & 1)
    signs = signs.astype(np.float32)  # sums of +-1 below 2^24: exact
    z = np.concatenate([signs.sum(0), (signs.T @ signs)[np.triu_indices(32, 1)]]) / 2**10
    assert np.abs(z).max() < z_limit(32 + 496)


def test_avalanche():
    # Flip each bit of low, high, k0 and k1: each bit of the output flips with probability 1/2.
    # 2^16 consecutive indices, 128 x 32 frequencies, each a z; alarm 1e-4 in all.
    n = 2**16
    low = np.arange(n, dtype=np.uint32)
    k0, k1 = KEY

    @jax.jit
    def flips(words, mask):
        def out(low, high, k0, k1):
            return bits_at(jnp.stack([k0, k1]), low, high)

        changed = out(low, *words[1:]) ^ out(low ^ mask[0], *(words[1:] ^ mask[1:]))
        return ((changed[:, None] >> jnp.arange(32, dtype=jnp.uint32)[None]) & 1).sum(0)

    words = np.array([0, 0, k0, k1], np.uint32)
    masks = np.zeros((128, 4), np.uint32)
    masks[np.arange(128), np.arange(128) // 32] = np.uint32(1) << (np.arange(128) % 32)
    counts = np.stack([np.asarray(flips(words, mask)) for mask in masks])
    z = (counts - n / 2) / np.sqrt(n / 4)
    # A flip of a bit of ``low`` visits each pair (i, i ^ bit) twice, which doubles the variance.
    z[:16] /= np.sqrt(2)
    assert np.abs(z).max() < z_limit(z.size)


def test_collisions_are_those_of_a_random_function():
    # 2^20 words of 32 bits: the number of equal pairs is Poisson(2^19 (2^20 - 1) / 2^32), about
    # 128; a permutation would have none. Alarm 1e-4.
    assert collisions_p(bits(KEY, 2**20)) > ALARM


# Statistics of the uniform values


def test_uniform_distribution():
    # 2^22 values: Kolmogorov-Smirnov, mean and mean square; alarm 1e-4 each.
    x = np.asarray(random.uniform(KEY, (2**22,))).astype(np.float64)
    assert stats.kstest(x, stats.uniform(-1, 2).cdf).pvalue > ALARM
    assert abs(x.mean()) * np.sqrt(3 * x.size) < z_limit(1)
    assert abs((x**2).mean() - 1 / 3) * np.sqrt(45 / 4 * x.size) < z_limit(1)


@pytest.mark.parametrize("stride", [1, 2, 3, 9, 64, 288, 2**12, 2**31 + 1])
def test_neighbours_are_independent(stride):
    # 2^20 values at multiples of the stride: pairs of consecutive values, 64 x 64 cells of their
    # upper bits, non-overlapping, chi-square; alarm 1e-4 for each stride.
    assert neighbours_p(bits(KEY, 2**20, stride)) > ALARM


def test_no_autocorrelation():
    # 2^20 values, lags 1 to 4096, each a z with circular lags by FFT; alarm 1e-4 in all.
    x = np.asarray(random.uniform(KEY, (2**20,))).astype(np.float64)
    power = np.abs(np.fft.rfft(x - x.mean())) ** 2
    z = np.fft.irfft(power)[1:4097] / x.var() / np.sqrt(x.size)
    assert np.abs(z).max() < z_limit(4096)


FAMILIES = {
    "layers": lambda i: random.key(0, f"layer{i}"),
    "kernel and bias": lambda i: random.key(i // 2, "conv", ("kernel", "bias")[i % 2]),
    "seeds": lambda i: random.key(i, "conv1"),
    "first word": lambda i: np.array([i, 0], np.uint32),  # keys that no hash has spread
    "second word": lambda i: np.array([0, i], np.uint32),
    "both words": lambda i: np.array([i, i], np.uint32),
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_streams_are_independent(family):
    # 64 keys of 2^14 values at the same indices: 2,016 correlations of streams, as many with one of
    # the two shifted by an index, and 64 means; alarm 1e-4 in all.
    n = 2**14
    draw = jax.jit(jax.vmap(lambda key: random.uniform(key, (n,))))
    x = np.asarray(draw(np.stack([family(i) for i in range(64)]))).astype(np.float64)
    assert largest_stream_z(x) < z_limit(2 * 2016 + 64)


def test_blocks_are_independent():
    # The same 4,096 comparisons for 64 values of the high word; alarm 1e-4 in all.
    n = 2**14
    low, high = np.arange(n, dtype=np.uint32)[None], np.arange(64, dtype=np.uint32)[:, None]
    x = np.asarray(random.as_uniform(jax.jit(bits_at)(KEY, low, high))).astype(np.float64)
    assert largest_stream_z(x) < z_limit(2 * 2016 + 64)


def test_the_statistics_see_weak_generators():
    low = np.arange(2**20, dtype=np.uint32)
    assert neighbours_p(low * np.uint32(0x9E3779B9)) < ALARM  # a multiplied counter
    one_round = np.asarray(random._mix(jnp.asarray(low)))
    assert collisions_p(one_round) < ALARM  # a permutation
    streams = np.stack([one_round[: 2**14] + np.uint32(i << 20) for i in range(64)])
    assert largest_stream_z(streams / 2.0**31 - 1) > z_limit(2 * 2016 + 64)  # a key only added


# The normal values


def test_normal_is_the_quantile():
    # Every piece of every octave at its ends and inside, against SciPy's quantile in float64.
    octave = np.arange(31)[:, None, None]
    piece, place = np.arange(256)[None, :, None], np.array([0.0, 0.25, 0.5, 0.75, 0.999])
    tail = np.unique((2.0**octave * (1 + (piece + place) / 256)).astype(np.int64))
    tail = np.append(tail, 2**31)
    word = (tail - 1).astype(np.uint32)
    exact = -special.ndtri((tail - 0.5) / 2**32)
    x = np.asarray(random.as_normal(jnp.asarray(word))).astype(np.float64)
    step = np.where(exact < 1, 0, np.spacing(exact.astype(np.float32)) / 2)
    assert (np.abs(x - exact) - step).max() < 1e-6
    assert np.abs(stats.norm.cdf(x) - stats.norm.cdf(exact)).max() < 4e-7 - 2.0**-32
    assert x.max() == pytest.approx(6.33, abs=0.01)
    assert (np.diff(x) <= 0).all()  # larger tail, smaller value
    mirrored = np.asarray(random.as_normal(jnp.asarray(word | np.uint32(2**31))))
    np.testing.assert_array_equal(mirrored, -x)


def test_normal_distribution():
    # 2^22 values: Kolmogorov-Smirnov; mean, mean square, cube and fourth power; alarm 1e-4 in all.
    x = np.asarray(random.normal(KEY, (2**22,))).astype(np.float64)
    assert stats.kstest(x, "norm").pvalue > ALARM / 5
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        z = ((x**power).mean() - mean) / np.sqrt(variance / x.size)
        assert abs(z) < z_limit(5), power


def test_normal_tails():
    # 2^24 values: those beyond +-3, 4 and 5 are Poisson, 45,294, 1,063 and 9.6 expected; alarm 1e-4
    # each.
    sigmas = np.array([3.0, 4.0, 5.0], np.float32)
    beyond = np.zeros(3)
    for block in range(16):
        x = np.abs(random.normal(KEY, (2**20,), start=2**40 + block * 2**20))
        x = x[x > 3]
        beyond += (x[None, :] > sigmas[:, None]).sum(1)
    law = stats.poisson(2**24 * 2 * stats.norm.sf(sigmas))
    assert (np.minimum(law.cdf(beyond), law.sf(beyond - 1)) > ALARM / 2).all()


# Yes or no


@pytest.mark.parametrize("probability", [0.0, 1e-12, 0.1, 0.5, 0.9, 1.0])
def test_bernoulli_is_a_threshold_of_the_bits(probability: float):
    drawn = np.asarray(random.bernoulli(KEY, probability, (50, 40), start=7))
    words = np.asarray(bits_at(KEY, np.arange(7, 2007, dtype=np.uint32)), np.uint64)
    assert drawn.dtype == bool
    assert np.array_equal(drawn.reshape(-1), words < round(probability * 2**32))


def test_bernoulli_has_its_probability():
    # 2^20 draws: off by 5 standard errors with a probability of 6e-7.
    for probability in (0.02, 0.37, 0.8):
        share = float(np.asarray(random.bernoulli(KEY, probability, (2**20,))).mean())
        assert abs(share - probability) < 5 * (probability * (1 - probability) / 2**20) ** 0.5


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_no_probability_is_refused(probability: float):
    with pytest.raises(ValueError, match=r"a probability lies in \[0, 1\]"):
        random.bernoulli(KEY, probability, (3,))
