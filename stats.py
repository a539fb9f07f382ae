"""Intervals and tests: which conclusions several seeds and several speakers allow.

An interval answers "what if other speakers had been tested, with other seeds"; a test answers "is A better than B".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import metrics

LEVEL = 0.05
RESAMPLES = 20_000  # an interval's ends then vary by 0.1 to 0.2 points with the draws; with 2000, by up to 0.6
AT_ONCE = 2000  # how many resamples are computed at once; with 100 seeds, these take 100 MB
SEED = 2021  # seed of the draws
DISAGREE = "ranks and mean disagree"  # a verdict
FEWEST = 5  # speakers (or seeds of one speaker): with 2, a 95 % interval holds the truth 50 times in 100, with 4, 88


def mean_sd(values: NDArray[np.float64]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (n - 1) of values `(n,)`; the deviation is None for n = 1."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class Interval:
    """The 95 % interval of the four scores' means, `low` to `high` `(4,)` in per cent; `over`: what is resampled."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    over: str


def interval(confusions: NDArray, resamples: int = RESAMPLES, seed: int = SEED) -> Interval | None:
    """Return the 95 % bootstrap interval of each score's mean over seeds, from counts `(S seeds, P speakers, C, C)`.

    Each resample draws P of the P speakers with replacement, each with all test utterances of that speaker in every
    seed. Independently it draws S of the S seeds with replacement, scores each drawn seed on the drawn speakers, and
    takes the mean. Speakers and seeds are crossed (Owen, "The pigeonhole bootstrap", 2007), because a hard speaker is
    hard in every seed: S x P independent observations would make the interval too narrow. The picked epochs stay the
    same, so that an interval knows nothing of a rule's optimism. With one speaker only seeds are drawn, with one seed
    only speakers, so that the interval leaves out how much seeds differ. A few seeds hardly tell it: with 91 speakers,
    and seeds that differ half as much, intervals of 1, 2, 3, 5 and 10 seeds hold the truth 45, 77, 85, 90 and 93 times
    in 100. The noise of single utterances is counted three times (Owen): with ten speakers, five seeds and six
    utterances of a speaker in each, as on 8:2, intervals hold the truth 99 times. A resample leaves out each seed that
    was tested on a class which the drawn speakers lack, as its UA would be a mean over other classes. Returns None with
    fewer than FEWEST speakers (or seeds of one speaker), and where fewer than half of the resamples have a seed left.
    """
    seeds, speakers = confusions.shape[:2]
    if _limiting_count(seeds, speakers) < FEWEST:
        return None
    generator = np.random.default_rng(seed)
    speaker_draws, seed_draws = (_draws(n, resamples, generator) for n in (speakers, seeds))
    over = "seeds (one speaker)" if speakers == 1 else "speakers (one seed)" if seeds == 1 else "speakers and seeds"
    return _percentiles(_drawn_means(confusions, speaker_draws, seed_draws), _limiting_count(seeds, speakers), over)


def interval_of_change(before: NDArray, after: NDArray, same_seeds: bool) -> Interval | None:
    """Return the interval of each score's change from `before` to `after`, both counts `(S, P, C, C)` of P speakers.

    It is made as in `interval`. Each resample draws the same speakers for both and, with `same_seeds`, the same seeds,
    so that what is hard for both cancels.
    """
    seeds, speakers = min(before.shape[0], after.shape[0]), before.shape[1]
    if _limiting_count(seeds, speakers) < FEWEST:
        return None
    generator = np.random.default_rng(SEED)
    speaker_draws, seed_draws = (_draws(n, RESAMPLES, generator) for n in (speakers, before.shape[0]))
    other_draws = seed_draws if same_seeds else _draws(after.shape[0], RESAMPLES, generator)
    first = _drawn_means(before, speaker_draws, seed_draws)
    change = _drawn_means(after, speaker_draws, other_draws) - first
    return _percentiles(change, _limiting_count(seeds, speakers), "shared speakers")


def _limiting_count(seeds: int, speakers: int) -> int:
    """Return the n that limits an interval: the number of speakers, for which many seeds do not make up; with a single
    speaker, the number of seeds."""
    return speakers if speakers > 1 else seeds


def _draws(n: int, resamples: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return for each of B resamples how often each of n things is drawn in n draws with replacement `(B, n)`."""
    return generator.multinomial(n, np.full(n, 1 / n), resamples)


def _drawn_means(confusions: NDArray, speaker_draws: NDArray, seed_draws: NDArray) -> NDArray[np.float64]:
    """Return the mean scores of the drawn seeds on the drawn speakers `(B, 4)`; NaN where every seed is left out."""
    if len(speaker_draws) > AT_ONCE:
        parts = range(0, len(speaker_draws), AT_ONCE)
        draws = [(speaker_draws[i : i + AT_ONCE], seed_draws[i : i + AT_ONCE]) for i in parts]
        return np.concatenate([_drawn_means(confusions, *each) for each in draws])
    counts = np.tensordot(speaker_draws.astype(float), confusions.astype(float), axes=(1, 1))  # (B, S, C, C)
    scores = metrics.scores_of(counts)  # (B, S, 4)
    tested = confusions.sum((1, 3)) > 0  # (S, C)
    weights = seed_draws * ((counts.sum(3) > 0) == tested).all(2)
    with np.errstate(invalid="ignore"):
        return np.einsum("bs,bsk->bk", weights, np.nan_to_num(scores)) / weights.sum(1)[:, None]


def _percentiles(means: NDArray[np.float64], n: int, over: str) -> Interval | None:
    """Return the 95 % interval from resamples `(B, 4)` of n speakers, or of n seeds.

    For a small n, plain percentiles are too narrow, as is a normal interval that divides by n and ignores Student's t.
    So each tail is cut at less than 2.5 %, which widens the interval by the factor that a normal interval would need
    (Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69, 2015: expanded
    percentiles). Returns None if fewer than half of the resamples count, that is, are not NaN.
    """
    from scipy.stats import norm, t

    counted = means[~np.isnan(means).any(1)]
    if len(counted) < len(means) / 2:
        return None
    outside = norm.cdf(t.ppf(LEVEL / 2, n - 1) * np.sqrt(n / (n - 1)))
    low, high = np.quantile(counted, [outside, 1 - outside], axis=0)
    return Interval(low, high, over)


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p of a signed-rank test of `n` pairs: all have one sign, in 2 of 2^n cases."""
    return min(1.0, 2.0 ** (1 - n))


def signed_rank(differences: NDArray[np.float64]) -> tuple[float, int]:
    """Return the two-sided p of Wilcoxon's signed-rank test, and the sign with the larger rank sum (0 if none).

    Paired differences `(n,)` are rounded to 1e-9, and zeros are dropped, as Wilcoxon did. p is exact, also where
    differences tie, as those of accuracies do. (For more than 13 differences with ties, SciPy takes the normal
    approximation, which can be 0.02 off near 0.05.)
    """
    from scipy.stats import rankdata

    rounded = np.round(differences, 9)
    left = rounded[rounded != 0]
    ranks = np.rint(2 * rankdata(np.abs(left))).astype(int)  # doubled: ties share half ranks
    chances = np.ones(1)  # probability of each sum of the positive ranks, where both signs are equally likely
    for rank in ranks:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    balance = int((np.sign(left) * ranks).sum())
    as_far = np.abs(2 * np.arange(len(chances)) - ranks.sum()) >= abs(balance)
    return min(1.0, float(chances[as_far].sum())), int(np.sign(balance))


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values, in the order given. From the smallest up, each p is multiplied by how many are
    left, and raised to the adjusted one before it if that is larger."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class Comparison:
    """One paired test of a family."""

    n: int
    difference: float | None  # mean of the differences, first minus second
    p: float | None
    adjusted: float | None
    verdict: str


def _verdict(p: list[float], i: int, d: NDArray[np.float64], sign: int, names: tuple[str, str]) -> str:
    reachable = holm([*p[:i], smallest_p(len(d)), *p[i + 1 :]])[i]  # if all differences of this pair had one sign
    if reachable > LEVEL:
        return "n too small to tell"
    if holm(p)[i] > LEVEL:  # includes equal rank sums, where p is 1
        return "no difference shown"
    if sign * d.mean() < 0:
        return DISAGREE
    return f"{names[0] if sign > 0 else names[1]} is better"


def compare(pairs: Sequence[tuple[tuple[str, str], NDArray[np.float64]]]) -> list[Comparison]:
    """Test pairs, each two names and their differences `(n,)` (first - second), as a family that is Holm-corrected.

    A pair can never be significant if its differences are so few that p would stay above 0.05 even if all had one
    sign. Such a pair does not count in the family and has no adjusted p (Tarone, Biometrics 46, 1990).
    """
    results = [signed_rank(d) for _, d in pairs]
    counted = [i for i, (_, d) in enumerate(pairs) if smallest_p(len(d)) <= LEVEL]
    p = [results[i][0] for i in counted]
    adjusted = dict(zip(counted, holm(p), strict=True))
    found = []
    for i, ((names, d), (value, sign)) in enumerate(zip(pairs, results, strict=True)):
        if not len(d):
            found.append(Comparison(0, None, None, None, "nothing shared to compare"))
            continue
        verdict = _verdict(p, counted.index(i), d, sign, names) if i in adjusted else "n too small to tell"
        found.append(Comparison(len(d), float(d.mean()), value, adjusted.get(i), verdict))
    return found
