"""Intervals and tests against answers worked out by hand (the working stands beside each)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, wilcoxon

import metrics
import stats

CLASSES = 3
# answers are worked out by hand for two or three speakers; one test has the number that is asked for
pytestmark = pytest.mark.usefixtures("two_speakers_will_do")


def counts(*speakers: tuple[int, int]) -> np.ndarray:
    """Confusions `(P, 2, 2)`: of each speaker (right, wrong) utterances of class 0."""
    return np.array([[[right, wrong], [0, 0]] for right, wrong in speakers])


# -------------------------------------------------------------------------------------------------- scores


@given(st.lists(st.integers(0, 6), min_size=CLASSES**2, max_size=CLASSES**2).filter(any))
def test_scores_of_many_confusions_are_those_of_metrics(cells: list[int]) -> None:
    confusion = np.array(cells).reshape(CLASSES, CLASSES)
    labels, guesses = (np.repeat(index.ravel(), cells) for index in np.indices(confusion.shape))
    expected = metrics.scores(np.eye(CLASSES)[guesses], labels)
    many = metrics.scores_of(np.stack([confusion, confusion + 1]))
    assert many.shape == (2, 4)
    assert many[0] == pytest.approx([expected[name] for name in metrics.SCORES])


def test_scores_of_nothing_are_nan() -> None:
    assert np.isnan(metrics.scores_of(np.zeros((2, 2)))).all()


def test_mean_and_sample_deviation() -> None:
    # mean of 2, 4, 9 is 5; squares of -3, -1, 4 sum to 26; 26 / 2 = 13
    assert stats.mean_sd(np.array([2.0, 4.0, 9.0])) == pytest.approx((5, 13**0.5))
    assert stats.mean_sd(np.array([7.0])) == (7, None)


# ------------------------------------------------------------------------------------------------ intervals


def test_two_speakers_one_seed() -> None:
    # draws of two of {all right, all wrong}: right twice 1/4, one of each 1/2, wrong twice 1/4 -> WA 100, 50, 0;
    # 2.5 % and 97.5 % both lie inside the quarters at the ends
    interval = stats.interval(counts((10, 0), (0, 10))[None])
    assert interval is not None
    assert (interval.low[0], interval.high[0]) == (0, 100)
    assert interval.over == "speakers (one seed)"


def test_seeds_do_not_make_up_for_speakers() -> None:
    # the same two speakers in 50 seeds: which speakers there are matters as much as before
    interval = stats.interval(np.repeat(counts((10, 0), (0, 10))[None], 50, axis=0))
    assert interval is not None
    assert (interval.low[0], interval.high[0]) == (0, 100)
    assert interval.over == "speakers and seeds"
    one, four = (stats.interval(crossed(1, 1, 5).repeat(n, 0)) for n in (1, 4))
    assert one is not None and four is not None
    assert four.low == pytest.approx(one.low) and four.high == pytest.approx(one.high)


def test_one_speaker_resamples_seeds() -> None:
    interval = stats.interval(np.stack([counts((10, 0)), counts((0, 10))]))
    assert interval is not None
    assert (interval.low[0], interval.high[0]) == (0, 100)
    assert interval.over == "seeds (one speaker)"


def test_a_speaker_counts_with_all_utterances() -> None:
    # five speakers with 10 right each, one with 50 wrong: of six draws he is k with probability .335, .402, .201, .054,
    # .008, .0006; 0.24 % of the draws (Student's t with 5 degrees of freedom) are below k = 4: 20 of 220 right
    interval = stats.interval(counts(*[(10, 0)] * 5, (0, 50))[None])
    assert interval is not None and interval.high[0] == 100
    assert interval.low[0] == pytest.approx(100 * 20 / 220), "if each speaker counted the same, 33"


def test_nothing_varies_nothing_to_cover() -> None:
    interval = stats.interval(np.repeat(counts((3, 1), (3, 1), (3, 1))[None], 4, axis=0))
    assert interval is not None
    assert interval.low[0] == interval.high[0] == 75


def test_no_interval_from_one_seed_and_one_speaker() -> None:
    assert stats.interval(counts((3, 1))[None]) is None


def test_no_interval_of_few_speakers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "FEWEST", 5)
    one = counts((3, 1), (1, 2), (2, 2), (4, 0), (1, 1))
    for confusions in (one[None], one.repeat(9, 0).reshape(5, 9, 2, 2).swapaxes(0, 1), one[:, None]):
        assert stats.interval(confusions) is not None
    for confusions in (one[:4][None], one[:4, None], np.stack([one[:4]] * 9)):
        assert stats.interval(confusions) is None
        assert stats.interval_of_change(confusions, confusions, same_seeds=True) is None


def test_speakers_that_a_seed_does_not_test() -> None:
    # seed 1 tests A alone, seed 2 tests B alone: a draw of A A leaves seed 2 nothing to score
    confusions = np.stack([counts((4, 0), (0, 0)), counts((0, 0), (0, 4))])
    interval = stats.interval(confusions)
    assert interval is not None
    assert np.isfinite(interval.low).all() and np.isfinite(interval.high).all()
    assert (interval.low[0], interval.high[0]) == (0, 100)


def test_equal_calls_equal_intervals() -> None:
    confusions = np.random.default_rng(1).integers(0, 9, (3, 5, 4, 4))
    first, second = stats.interval(confusions), stats.interval(confusions)
    assert first is not None and second is not None
    assert (first.low == second.low).all() and (first.high == second.high).all()
    assert (first.low <= metrics.scores_of(confusions.sum(1)).mean(0)).all()
    assert (first.high >= metrics.scores_of(confusions.sum(1)).mean(0)).all()


@pytest.mark.parametrize(("speakers", "seeds", "alike"), [(20, 4, False), (10, 5, False), (10, 1, True), (10, 5, True)])
def test_coverage_of_the_true_accuracy(speakers: int, seeds: int, alike: bool) -> None:
    # speakers whose accuracies are drawn around 0.7, 25 utterances each in every seed: the interval of the mean should
    # hold 70 about 95 times in 100, also where seeds recognise the same utterances. Intervals over 4 seeds' 2000
    # utterances of 20 speakers as if they were independent would be sqrt(1 + 99 * 0.048) = 2.4 times too narrow; plain
    # percentiles of ten speakers hold it 90 times.
    generator = np.random.default_rng(7)
    held, trials = 0, 200
    for _ in range(trials):
        accuracy = generator.beta(14, 6, speakers)  # mean 0.7
        right = generator.binomial(25, accuracy, (seeds, speakers))
        right = right[:1].repeat(seeds, axis=0) if alike else right
        confusions = np.zeros((seeds, speakers, 2, 2), dtype=int)
        confusions[..., 0, 0], confusions[..., 0, 1] = right, 25 - right
        interval = stats.interval(confusions, resamples=300, seed=int(generator.integers(1 << 30)))
        assert interval is not None
        held += interval.low[0] <= 70 <= interval.high[0]
    assert 0.92 <= held / trials <= 0.99


def test_the_ends_of_an_interval_hardly_depend_on_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    confusions = crossed(3, seeds=5, speakers=10)
    found = [stats.interval(confusions, seed=seed) for seed in range(8)]
    ends = np.array([[each.low[:2], each.high[:2]] for each in found if each])
    assert len(ends) == 8 and ends.std(0).max() < 0.2
    monkeypatch.setattr(stats, "AT_ONCE", 10**6)  # nor on how many are counted at a time
    whole = stats.interval(confusions, seed=0)
    assert whole is not None and whole.low == pytest.approx(found[0].low) and whole.high == pytest.approx(found[0].high)


@pytest.mark.parametrize(
    ("speakers", "seeds", "differ", "utterances", "least", "most"),
    [
        (91, 1, 0.05, 16, 0.38, 0.52),
        (91, 2, 0.05, 16, 0.7, 0.85),
        (91, 5, 0.05, 16, 0.85, 0.95),
        (10, 1, 0.02, 30, 0.87, 0.95),
        (10, 1, 0.05, 30, 0.74, 0.86),
        (10, 5, 0.05, 30, 0.94, 1),
        (10, 5, 0.05, 6, 0.97, 1),
    ],
)
def test_few_seeds_hardly_tell_how_much_seeds_differ(
    speakers: int, seeds: int, differ: float, utterances: int, least: float, most: float
) -> None:
    # speakers' accuracies differ by 10 points, seeds' by 2 or 5. What a single seed lacks is said below a table.
    # With thousands of trials, coverage is 0.45, 0.77, 0.90, 0.93, 0.81, 0.97 and 0.99.
    generator = np.random.default_rng(1)
    held, trials = 0, 150
    for _ in range(trials):
        accuracy = 0.7 + generator.normal(0, 0.1, speakers) + generator.normal(0, differ, (seeds, 1))
        right = generator.binomial(utterances, np.clip(accuracy, 0, 1))
        confusions = np.zeros((seeds, speakers, 2, 2), dtype=int)
        confusions[..., 0, 0], confusions[..., 0, 1] = right, utterances - right
        interval = stats.interval(confusions, resamples=300, seed=int(generator.integers(1 << 30)))
        assert interval is not None
        held += interval.low[0] <= 70 <= interval.high[0]
    assert least <= held / trials <= most, held / trials


def test_the_ends_of_an_interval_of_few_speakers() -> None:
    # n = 10: Student's t of 0.025 with 9 degrees of freedom is -2.262; times sqrt(10 / 9) it is -2.385, below which a
    # normal value is 0.00855 of the time
    means = np.arange(10001.0)[:, None].repeat(4, 1)
    found = stats._percentiles(means, 10, "speakers")
    assert found is not None and (found.low[0], found.high[0]) == pytest.approx((85.5, 10000 - 85.5), abs=0.5)


def test_draws_without_a_class_are_left_out() -> None:
    # three speakers, of whom one alone has class 1, which is never recognised: UA is 50, and 100 in draws without him
    confusions = np.array([[[9, 0], [0, 0]], [[9, 0], [0, 0]], [[9, 0], [4, 0]]])[None]
    interval = stats.interval(confusions)
    assert interval is not None and interval.low[1] == interval.high[1] == 50
    assert interval.low[0] == pytest.approx(100 * 9 * 3 / (9 * 3 + 4 * 3)), "three times him"


def test_no_interval_where_most_draws_lack_a_class() -> None:
    # three classes, each of one speaker: of 27 draws 6 hold all three
    one, two, three = np.zeros((3, 3, 3), dtype=int)
    one[0, 0] = two[1, 1] = two[1, 2] = three[2, 2] = 5
    confusions = np.stack([one, two, three])[None]
    assert stats.interval(confusions) is None
    assert stats.interval_of_change(confusions, confusions, same_seeds=True) is None
    fourth = np.stack([one, two, three, one + two + three])[None]  # 175 of 256 draws hold the fourth
    assert stats.interval(fourth) is not None
    means = np.where(np.arange(100) < 50, 1.0, np.nan)[:, None].repeat(4, 1)
    half, fewer = (stats._percentiles(each, 10, "speakers") for each in (means, means[1:]))
    assert half is not None and fewer is None, "50 of 100, 49 of 99"


# ---------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize(
    ("differences", "p", "sign"),
    [
        ([1, 2, 3, 4, 5], 2 / 32, 1),  # all of one sign: W- = 0, one case of 32, two-sided
        ([-1, -2, -3, -4, -5], 2 / 32, -1),
        ([1, 2, 3, -4], 14 / 16, 1),  # W- = 4; subsets of 1..4 with sum <= 4: {} 1 2 3 4 12 13, 7 of 16
        ([2, 2, -1], 4 / 8, 1),  # ranks 2.5 2.5 1; sums <= 1 are {} and {1}, 2 of 8
        ([0, 0, 1, 2, 3, 4, 5], 2 / 32, 1),  # zeros are dropped
        ([0.1 + 0.2 - 0.3, 1, 2, 3, 4, 5], 2 / 32, 1),  # and so is 5.6e-17
        ([0, 0, 0], 1, 0),
        ([1, -1], 1, 0),  # ranks 1.5 and 1.5
    ],
)
def test_signed_rank(differences: list[float], p: float, sign: int) -> None:
    found = stats.signed_rank(np.array(differences, dtype=float))
    assert found[0] == pytest.approx(p)
    assert found[1] == sign


def test_signed_rank_is_exact_for_many_pairs_and_with_ties() -> None:
    p, sign = stats.signed_rank(np.arange(1.0, 101))
    assert p == pytest.approx(2.0**-99, rel=1e-9) and sign == 1  # all positive: W- = 0, one case of 2^100, two-sided
    generator = np.random.default_rng(0)
    for n, kinds in ((12, 4), (14, 3), (14, 6)):
        differences = generator.integers(1, kinds + 1, n) * generator.choice([-1, 1], n, p=[0.25, 0.75])
        ranks = rankdata(np.abs(differences))
        signs = 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) - 1  # every way they might have fallen
        as_far = np.abs(signs @ ranks) >= abs(np.sign(differences) @ ranks) - 1e-9
        assert stats.signed_rank(differences.astype(float))[0] == pytest.approx(as_far.mean())
    untied = generator.permutation(np.arange(1.0, 31)) * generator.choice([-1, 1], 30)
    assert stats.signed_rank(untied)[0] == pytest.approx(wilcoxon(untied, method="exact").pvalue)


@pytest.mark.parametrize(("n", "p"), [(1, 1), (2, 0.5), (5, 0.0625), (6, 0.03125)])
def test_smallest_p(n: int, p: float) -> None:
    assert stats.smallest_p(n) == p
    assert stats.signed_rank(np.arange(1.0, n + 1))[0] == pytest.approx(p)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 0.01*3, 0.03*2 = 0.06, 0.04*1 -> not below 0.06
        ([0.5, 0.6], [1, 1]),  # 0.5*2 = 1, then at least 1
        ([0.02], [0.02]),
        ([0.01, 0.01], [0.02, 0.02]),
        ([], []),
    ],
)
def test_holm(p: list[float], adjusted: list[float]) -> None:
    assert stats.holm(p) == pytest.approx(adjusted)


UP = np.arange(1.0, 20)


@pytest.mark.parametrize(
    ("n", "tests", "verdict"),
    [
        (5, 1, "n too small to tell"),  # 2/32 = 0.0625
        (6, 1, "A is better"),  # 2/64 = 0.03125
        (6, 2, "n too small to tell"),  # 0.0625 after Holm
        (7, 3, "A is better"),  # 3 * 2/128 = 0.0469
        (7, 4, "n too small to tell"),  # 4 * 2/128 = 0.0625
        (8, 6, "A is better"),  # 6 * 2/256 = 0.0469
    ],
)
def test_verdict_from_n(n: int, tests: int, verdict: str) -> None:
    found = stats.compare([(("A", "B"), UP[:n])] * tests)
    assert [test.verdict for test in found] == [verdict] * tests
    assert found[0].n == n and found[0].difference == pytest.approx(UP[:n].mean())
    assert found[0].p == pytest.approx(2 / 2**n)
    assert found[0].adjusted == (None if n < 6 else pytest.approx(tests * 2 / 2**n))


def test_verdicts() -> None:
    mixed = np.array([1.0, -2, 3, -4, 5, -6, 7, -8])
    found = stats.compare([(("A", "B"), -UP[:10]), (("A", "C"), mixed), (("B", "C"), UP[:4])])
    assert [test.verdict for test in found] == ["B is better", "no difference shown", "n too small to tell"]


def test_nobody_is_better_whose_mean_is_worse() -> None:
    (test,) = stats.compare([(("A", "B"), np.append(-UP / 10, 60))])  # a seed in which B learned nothing
    assert test.difference is not None and test.difference > 0 and test.p is not None and test.p < 0.01
    assert test.verdict == stats.DISAGREE


def test_a_verdict_is_of_the_corrected_p() -> None:
    mostly = np.array([1.0, 2, -3, 4, 5, 6, 7, 8])  # W- = 3; subsets of 1..8 with sum <= 3: {} 1 2 3 12, 5 of 256
    (alone,) = stats.compare([(("A", "B"), mostly)])
    assert (alone.adjusted, alone.verdict) == (pytest.approx(10 / 256), "A is better")
    first, _ = stats.compare([(("A", "B"), mostly), (("A", "C"), mostly)])
    assert (first.adjusted, first.verdict) == (pytest.approx(20 / 256), "no difference shown")


def test_a_clear_test_leaves_room_for_the_next() -> None:
    # 10 pairs of one sign take p = 0.00195, doubled by Holm; the next is then not doubled: 6 pairs reach 0.03125
    found = stats.compare([(("A", "B"), UP[:10]), (("A", "C"), UP[:6])])
    assert [test.adjusted for test in found] == pytest.approx([2 * 2**-9, 2**-5])
    assert [test.verdict for test in found] == ["A is better", "A is better"]


def test_pairs_too_few_to_ever_tell_take_nothing_from_the_others() -> None:
    found = stats.compare([(("A", "B"), UP[:6]), (("A", "C"), UP[:5]), (("B", "C"), UP[:1])])
    assert [test.adjusted for test in found] == [pytest.approx(2**-5), None, None]
    assert [test.verdict for test in found] == ["A is better", "n too small to tell", "n too small to tell"]


def test_pairs_that_share_nothing_are_no_tests() -> None:
    found = stats.compare([(("A", "B"), UP[:6]), (("A", "C"), np.array([]))])
    assert found[0].adjusted == pytest.approx(2**-5)  # of a family of one
    assert (found[1].n, found[1].p, found[1].verdict) == (0, None, "nothing shared to compare")


# ------------------------------------------------------------------------------------------------ changes


def crossed(seed: int, seeds: int = 4, speakers: int = 8, right: float = 0.7) -> np.ndarray:
    """Counts `(S, P, 2, 2)` of 40 utterances each; speakers differ much in how often they are understood."""
    generator = np.random.default_rng(seed)
    chance = np.clip(right + np.linspace(-0.25, 0.25, speakers), 0, 1)
    hits = generator.binomial(20, chance[None, :, None].repeat(2, 2), (seeds, speakers, 2))
    return np.stack(
        [np.stack([hits[..., 0], 20 - hits[..., 0]], -1), np.stack([20 - hits[..., 1], hits[..., 1]], -1)], -2
    )


def test_no_change_has_an_interval_of_nothing() -> None:
    counts = crossed(1)
    found = stats.interval_of_change(counts, counts, same_seeds=True)
    assert found is not None and not found.low.any() and not found.high.any()


def test_hard_speakers_cancel_in_a_change() -> None:
    before, after = crossed(1), crossed(2, right=0.65)
    change = stats.interval_of_change(before, after, same_seeds=False)
    alone = stats.interval(before)
    assert change is not None and alone is not None
    wa = metrics.scores_of(after.sum(1)).mean(0)[0] - metrics.scores_of(before.sum(1)).mean(0)[0]
    assert change.low[0] < wa < change.high[0] < 0
    assert change.high[0] - change.low[0] < 0.7 * (alone.high[0] - alone.low[0])


def test_equal_seeds_tell_no_more_of_a_change_than_one() -> None:
    one, four = (
        stats.interval_of_change(*(crossed(i, 1, 5).repeat(n, 0) for i in (1, 2)), same_seeds=True) for n in (1, 4)
    )
    assert one is not None and four is not None
    assert four.low == pytest.approx(one.low) and four.high == pytest.approx(one.high)


def test_one_seed_and_one_speaker_have_no_interval_of_change() -> None:
    one = crossed(1, 1, 1)
    assert stats.interval_of_change(one, one, same_seeds=True) is None
    assert stats.interval_of_change(crossed(1, 2, 1), one, same_seeds=False) is None, "nothing is known of the second"
    assert stats.interval_of_change(crossed(1, 2, 1), crossed(2, 3, 1), same_seeds=False) is not None
