"""What judges the mutants of each instrument: quick tests from the other files, one after the other.

A mutant is caught if one of them fails. They are deterministic and take milliseconds. EQUIVALENT lists, for
each module, the mutants that compute the same: (function, the line: the code: the change) -> why.
"""

import inspect
import signal
import types

import numpy as np

from refimpl import gradcheck, induction, recall, sgd
from refimpl.induction import task as induction_task
from refimpl.recall import task as recall_task
from tests import test_gradcheck, test_laws, test_sgd
from tests.induction import test_task as induction_tests
from tests.recall import test_task as recall_tests

CPU_SECONDS = 1         # for an endless loop


def survives(killers):
    """Whether all these checks pass."""
    def stop(*_):
        raise TimeoutError("an endless loop")
    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        for killer in killers:
            signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
            killer()
    except KeyboardInterrupt:
        raise
    except BaseException:       # pytest.fail is no Exception
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    return True


def each(test, *arguments):
    """A killer that calls a test with everything that it is parametrized with, and these arguments.

    Arguments that are functions are called first: what they make is new each time. Of a test that hypothesis
    feeds, the arguments are its one example.
    """
    if hasattr(test, "hypothesis"):
        test = test.hypothesis.inner_test
    cases = [{}]
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            names = [name.strip() for name in mark.args[0].split(",")]
            cases = [{**case, **dict(zip(names, value if len(names) > 1 else (value,)))}
                     for case in cases for value in mark.args[1]]
    free = [name for name in inspect.signature(test).parameters if name not in cases[0]]

    def killer():
        for case in cases:
            made = [value() if callable(value) else value for value in arguments]
            test(**case, **dict(zip(free, made, strict=True)))
    killer.__name__ = test.__name__
    return killer


def rng():
    return np.random.default_rng(20)


SGD = [each(getattr(test_sgd, f"test_{name}")) for name in (
    "step_worked_by_hand", "step_follows_pytorch", "step_leaves_its_arguments_alone",
    "step_takes_arrays_of_any_memory_order", "train_reports_the_loss_before_and_the_params_after",
    "train_moves_and_measures_trained_fields_only", "train_stops_where_loss_or_gradient_is_not_finite",
    "train_stops_where_the_update_is_not_finite", "step_refuses_bad_input",
    "train_refuses_what_holds_no_batches", "train_says_at_which_step_the_model_overflows")]


def pair():
    """What the fixture `x` of the gradients' tests holds."""
    generator = rng()
    return test_gradcheck.Pair(generator.normal(size=(2, 3)), generator.normal(size=3))


GRADCHECK = [each(getattr(test_gradcheck, f"test_{name}"), *arguments) for name, arguments in (
    ("relative_error", ()), ("relative_error_keeps_small_fields_in_sight_until_they_vanish", ()),
    ("complex_step_is_exact_to_rounding", (pair,)), ("complex_step_takes_arrays_of_every_shape", ()),
    ("complex_step_refuses_a_lost_imaginary_part", ()), ("complex_step_refuses_all_but_a_scalar", ()),
    ("central_difference_is_good_to_nine_digits", (pair,)),
    ("central_difference_truncation_is_second_order", (pair,)),
    ("checkers_leave_their_arguments_alone", (pair,)),
    ("adjoint_gap_is_rounding_for_a_right_backward", (pair,)),
    ("adjoint_gap_sees_one_wrong_entry_of_a_large_map", ()),
    ("adjoint_gap_refuses_a_lost_imaginary_part", ()))]


def lawful(law, sampler, **sizes):
    """A killer: the sampler, looked up at the time, follows this law."""
    def killer():
        assert law(getattr(*sampler), **sizes) > test_laws.RARE
    killer.__name__ = law.__name__
    return killer


INDUCTION_TASK = [
    *(each(getattr(induction_tests, f"test_{name}")) for name in (
        "from_text_counts_pairs_of_a_circle", "from_text_unigram_is_stationary",
        "from_text_counts_what_follows_not_what_precedes", "running_sums_end_in_exactly_one",
        "from_text_drops_rare_characters_and_joins_their_neighbours", "prior_leaves_no_zeros",
        "from_counts_sorts_by_frequency_and_keeps_names", "text_that_makes_no_bigram_is_refused",
        "bad_arguments_of_bigrams_are_named")),
    *(each(getattr(induction_tests, f"test_{name}"), rng) for name in (
        "occurrence_counts_each_trigger_up_to_t", "triggers_are_followed_by_their_output_and_others_are_not",
        "drawn_triggers_differ_within_and_between_sequences")),
    *(lawful(law, (induction, "sample")) for law in test_laws.TEXT_LAWS),
    lawful(test_laws.random_bigrams, (induction.Bigram, "random"), n=1500),
    each(induction_tests.test_tokens_of_probability_zero_are_never_drawn, rng),
    each(induction_tests.test_triggers_are_the_likely_ones_among_many, rng)]

CYCLE = recall.Facts(np.arange(7), np.roll(np.arange(7), 3), np.array([2, 0]))
DATA = types.SimpleNamespace(draw=lambda strategy: 2)       # in place of what hypothesis draws
RECALL_TASK = [
    *(each(getattr(recall_tests, f"test_{name}")) for name in (
        "answer_takes_plain_integers", "months_and_pitches_name_their_facts",
        "facts_that_are_not_latin_have_a_relation_that_is_no_bijection", "facts_keep_their_own_copy",
        "facts_refuse", "task_refuses", "expected_draws_are_counted_over_all_prompts",
        "collision_free_gives_up_with_what_it_tried", "distinct_can_take_everything",
        "rare_prompts_are_refused_at_once_with_the_draws_that_they_take")),
    each(recall_tests.test_tokens_alternate_subjects_and_answers, lambda: CYCLE, lambda: DATA),
    *(lawful(law, (recall, "sample")) for law in test_laws.PROMPT_LAWS),
    lawful(test_laws.latin_tables, (recall.Facts, "latin"), n=10)]

RESHAPE = "reshape reads every negative size as the one that is left"
UNIFORM = ('pi_o = np.full((V, V), 1 / V) if isinstance(outputs, str) and '
           'outputs == "uniform" else \\: ')
INSTRUMENTS = {
    sgd: (SGD, {
        ("step", "update(w.reshape(-1), g.reshape(-1), buffer.reshape(-1), "
         "*map(w.dtype.type, scalars)): 1: one more"): RESHAPE}),
    gradcheck: (GRADCHECK, {
        ("relative_error", "floor = VANISHING * max(sizes, default=0): 0: one more"):
        "without fields no error is compared with the floor",
        ("numbers", "return [array + 0.0 for array in arrays]: array + 0.0: operator swapped"):
        "less zero is the same number"}),
    induction_task: (INDUCTION_TASK, {
        **dict.fromkeys([("sample", UNIFORM + "1 / V: operator swapped"), ("sample", UNIFORM + "1: one more")],
                        "cumulative scales all rows to a sum of 1"),
        ("sample", "walk(cumulative(pi_u[None]), cumulative(pi_b), chosen, rng.random((n, T + 1)), z, "
         "occurrence): 1: one more"): "one number more than is used",
        ("walk", "seen = np.zeros(bigram.shape[0], np.int64): 0: one more"): "pi_b is square",
        ("Bigram.from_text", "counts = np.bincount(codes, minlength=1): 1: one more"):
        "characters that do not occur are dropped"}),
    recall_task: (RECALL_TASK, {
        ("collide", "answers = facts.answer(subjects[:, :, None], np.arange(facts.R))"
         ".reshape(len(subjects), -1): 1: one more"): RESHAPE,
        ("consecutive_draws", "if not facts.is_latin or np.count_nonzero(facts.relations[(facts.shifts + 1) "
         "% N] < 0) > 1:: facts.shifts + 1: operator swapped"): "a run of shifts ends on either side"}),
}
