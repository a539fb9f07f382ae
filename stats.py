"""Intervals and tests: what several seeds and several speakers allow to be said.

An interval answers "what if other speakers had been tested, with other seeds"; a test answers "is A better than B".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import metrics

LEVEL = 0.05
RESAMPLES = 20_000  # the ends of an interval then move by 0.1 to 0.2 points with the draws; of 2000 by up to 0.6
AT_ONCE = 2000  # resamples, of which 100 seeds take 100 MB
SEED = 2021  # of the draws
DISAGREE = "ranks and mean disagree"  # a verdict
FEWEST = 5  # speakers (seeds of one speaker): of fewer, a 95 % interval covers the truth 50 (two) to 88 times in 100


def mean_sd(values: NDArray[np.float64]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) of `(n,)`; no deviation for n = 1."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class Interval:
    """The 95 % interval of each of the four scores' means `(4,)`, in per cent, and over what it was resampled."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    over: str


def interval(confusions: NDArray, resamples: int = RESAMPLES, seed: int = SEED) -> Interval | None:
    """95 % bootstrap interval of each score's mean over seeds, from counts `(S seeds, P speakers, C, C)`.

    Every resample draws P of the P speakers with replacement, each with all of that speaker's test utterances in every
    seed, and independently S of the S seeds with replacement; it scores each drawn seed on the drawn speakers and takes
    the mean. Speakers and seeds are crossed (Owen, "The pigeonhole bootstrap", 2007): a hard speaker is hard in every
    seed, and counting S x P independent observations would make the interval too narrow. The epoch stays the one that
    was picked: an interval knows nothing of a rule's optimism. With one speaker seeds alone are drawn, with one seed
    speakers alone; with fewer than FEWEST there is no interval. Two or three seeds hardly tell how much seeds differ:
    with 91 speakers, and seeds that differ half as much, their intervals hold the truth 82 to 88 times in 100. In a
    draw that lacks a class which a seed was tested on, that seed is left out: its UA would be a mean over other
    classes. Where fewer than half of the draws have a seed left, there is no interval.
    """
    seeds, speakers = confusions.shape[:2]
    if _limiting_count(seeds, speakers) < FEWEST:
        return None
    generator = np.random.default_rng(seed)
    speaker_draws, seed_draws = (_draws(n, resamples, generator) for n in (speakers, seeds))
    over = "seeds (one speaker)" if speakers == 1 else "speakers (one seed)" if seeds == 1 else "speakers and seeds"
    return _percentiles(_drawn_means(confusions, speaker_draws, seed_draws), _limiting_count(seeds, speakers), over)


def interval_of_change(before: NDArray, after: NDArray, same_seeds: bool) -> Interval | None:
    """The interval of each score's change from `before` to `after`, counts `(S, P, C, C)` of the same P speakers.

    As `interval`, with the same speakers drawn for both, and the same seeds where the runs of both are of one list of
    seeds: what is hard in both cancels.
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
    """The n that limits an interval: of speakers, or of seeds where there is one speaker. Many seeds do not make up for
    few speakers."""
    return speakers if speakers > 1 else seeds


def _draws(n: int, resamples: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """How often each of n is drawn in n draws with replacement `(B, n)`."""
    return generator.multinomial(n, np.full(n, 1 / n), resamples)


def _drawn_means(confusions: NDArray, speaker_draws: NDArray, seed_draws: NDArray) -> NDArray[np.float64]:
    """Mean scores of the drawn seeds on the drawn speakers `(B, 4)`; NaN where all are to be left out."""
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
    """The 95 % interval from resamples `(B, 4)` of n speakers, or of n seeds.

    Plain percentiles are too narrow for a small n, as is a normal interval that divides by n and ignores Student's t:
    the tails are cut at less than 2.5 %, so that they are wider by as much (Hesterberg, "What Teachers Should Know
    About the Bootstrap", The American Statistician 69, 2015: expanded percentiles). None if fewer than half count.
    """
    from scipy.stats import norm, t

    counted = means[~np.isnan(means).any(1)]
    if len(counted) < len(means) / 2:
        return None
    outside = norm.cdf(t.ppf(LEVEL / 2, n - 1) * np.sqrt(n / (n - 1)))
    low, high = np.quantile(counted, [outside, 1 - outside], axis=0)
    return Interval(low, high, over)


def smallest_p(n: int) -> float:
    """The smallest two-sided p the signed-rank test can reach with `n` pairs: all of one sign, 2 cases of 2^n."""
    return min(1.0, 2.0 ** (1 - n))


def signed_rank(differences: NDArray[np.float64]) -> tuple[float, int]:
    """Wilcoxon's signed-rank test of paired differences `(n,)`: two-sided p, the sign with the larger rank sum (or 0).

    Differences of zero are dropped (Wilcoxon's way), and compared to 1e-9. p is exact, also where differences tie, as
    accuracies do: SciPy has the normal approximation for more than 13 of those, which can be 0.02 off near 0.05.
    """
    from scipy.stats import rankdata

    rounded = np.round(differences, 9)
    left = rounded[rounded != 0]
    ranks = np.rint(2 * rankdata(np.abs(left))).astype(int)  # doubled: ties share half ranks
    chances = np.ones(1)  # of each sum of the positive ranks, every sign being as likely as the other
    for rank in ranks:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    balance = int((np.sign(left) * ranks).sum())
    as_far = np.abs(2 * np.arange(len(chances)) - ranks.sum()) >= abs(balance)
    return min(1.0, float(chances[as_far].sum())), int(np.sign(balance))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: from the smallest up, times the number left, never falling."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class Comparison:
    """One paired test of a family."""

    n: int
    difference: float | None  # mean of first minus second
    p: float | None
    adjusted: float | None
    verdict: str


def _verdict(p: list[float], i: int, d: NDArray[np.float64], sign: int, names: tuple[str, str]) -> str:
    reachable = holm([*p[:i], smallest_p(len(d)), *p[i + 1 :]])[i]  # had this pair been as clear as n allows
    if reachable > LEVEL:
        return "n too small to tell"
    if holm(p)[i] > LEVEL:  # as where neither sign has the larger rank sum: p is 1
        return "no difference shown"
    if sign * d.mean() < 0:
        return DISAGREE
    return f"{names[0] if sign > 0 else names[1]} is better"


def compare(pairs: Sequence[tuple[tuple[str, str], NDArray[np.float64]]]) -> list[Comparison]:
    """A family of paired tests, Holm-corrected together: of each two names and the differences `(n,)`, first - second.

    Not counted in the family, and without an adjusted p, are pairs of so few differences that p could not fall to 0.05
    were all of one sign: they can never be significant (Tarone, Biometrics 46, 1990).
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
