"""What judges the mutants of each instrument: quick tests from the other files, one after the other.

A mutant is caught if one of them fails. They are deterministic and take milliseconds. EQUIVALENT lists, for
each module, the mutants that compute the same: (function, the line: the code: the change) -> why.
"""

import importlib
import inspect
import os
import shutil
import signal
import tempfile
import types
from pathlib import Path
from unittest.mock import patch

import numpy as np

from refimpl import gradcheck, induction, recall, sgd
from refimpl.claims import verdict
from refimpl.induction import ledger, memory as induction_memory, nopos, probes, task as induction_task
from refimpl.recall import batched, implicit, memory as recall_memory, task as recall_task
from refimpl.vectors import files
from tests.claims import test_audit, test_claim, test_verdict
from tests import test_gradcheck, test_laws, test_sgd, test_vectors_compare, test_vectors_files
from tests.induction import (
    test_loops, test_memory as induction_memories, test_nopos, test_probes, test_task as induction_tests)
from tests.recall import (
    test_batched, test_implicit, test_memory as recall_memories, test_task as recall_tests)

# Packages have functions of these names.
claim, audit, compare = (importlib.import_module(f"refimpl.{name}")
                         for name in ("claims.claim", "claims.audit", "vectors.compare"))
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None     # where folders come and go quickly
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


def within(test):
    """A killer that gives a test a folder of its own, outside of which no mutant can remove a folder."""
    rmtree = shutil.rmtree

    def killer():
        with tempfile.TemporaryDirectory(dir=MEMORY) as place:
            def guarded(path, *args, **kwargs):
                assert Path(path).resolve().is_relative_to(Path(place).resolve()), path
                rmtree(path, *args, **kwargs)
            with patch.object(shutil, "rmtree", guarded), patch.object(tempfile, "tempdir", place):
                each(test, lambda: Path(tempfile.mkdtemp()))()
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

INDUCTION_MEMORY = [
    *(each(induction_memories.test_frame_rows_are_one_orthonormal_set, *example) for example in (
        (3, 4, "relative", 0), (3, 4, "absolute", 0), (2, 1, "absolute", 1))),
    *(each(getattr(induction_memories, f"test_{name}"), rng) for name in (
        "construct_writes_the_memories_it_names", "absolute_memory_ends_at_the_training_length",
        "one_position_stores_no_previous_token", "construct_leaves_its_frame_alone_and_keeps_float32",
        "bad_arguments_of_construct_are_named", "zeros_of_a_bigram_are_met_on_purpose"))]
RECALL_MEMORY = [each(getattr(recall_memories, f"test_{name}")) for name in (
    "construct_writes_two_units_for_every_fact", "relu_memory_hears_whole_keys_only",
    "construct_starts_from_uniform_attention", "relu_bias_can_be_given", "construct_refuses")]
LEDGER = [each(test_loops.test_each_part_of_the_ledger_is_its_own_sum),
          each(test_loops.test_ledger_reads_one_position_and_one_token_alone)]


def nopos_model():
    """What the fixture `model` of the tests without positions holds."""
    bigram = induction.Bigram.random(4, rng())
    return nopos.construct(nopos.orthonormal_frame(4, rng()), bigram, [0], 3, 1, 2, 3, 4, 5), bigram


NOPOS = [each(test_loops.test_three_layers_follow_their_equations_on_general_weights),
         each(test_nopos.test_frame_is_orthonormal, rng),
         each(test_nopos.test_head_is_sharp_in_the_model, rng),
         each(test_nopos.test_construct_writes_the_memories_it_names, rng),
         each(test_nopos.test_bad_fields_of_params_are_named, nopos_model),
         each(test_nopos.test_bad_tokens_are_named, nopos_model)]
PROBES = [each(test_loops.test_probes_read_general_weights_row_by_row),
          each(test_probes.test_recall_counts_rows_and_averages_differences),
          each(test_probes.test_a_tie_is_no_recall),
          *(each(getattr(test_probes, f"test_{name}"), rng) for name in (
              "absolute_memory_is_not_recalled_beyond_the_training_length",
              "a_memory_without_content_is_refused", "bad_arguments_of_probes_are_named"))]
BATCHED = [*(each(test_batched.test_batched_model_is_the_model, *example) for example in (
               ("square", False, 2, 2, 3, 4, 1.0, 0), ("relu", False, 2, 2, 3, 4, 1.0, 1),
               ("square", True, 1, 1, 2, 5, 0.3, 2))),
           each(test_batched.test_facts_as_prompts_are_all_facts_in_both_directions, rng),
           each(test_batched.test_batched_model_keeps_float32, rng),
           each(test_batched.test_loss_and_gradient_forty_nats_apart_keep_their_digits),
           each(test_batched.test_bad_input_is_refused_as_by_the_model, rng)]


class Drawn:
    """In place of what hypothesis draws: a table, then weights."""

    def __init__(self, facts):
        self.values = [facts, [0.5, -1.0, 0.0, 2.0]]

    def draw(self, strategy):
        return self.values.pop(0)


IMPLICIT = [*(each(test_implicit.test_gradients_match_the_dense_model, n, 2, 5.0, noisy,
                   lambda facts=facts: Drawn(facts), 0)
              for n, noisy, facts in ((2, False, CYCLE), (2, True, recall.Facts.months()),
                                      (1, True, recall.Facts.months(2)))),
            *(each(getattr(test_implicit, f"test_{name}"), rng) for name in (
                "entries_that_are_not_known_are_zero_and_have_no_gradient", "smallest_tables",
                "one_relation_leaves_nothing_to_infer", "steps_share_no_entry",
                "losses_and_gradients_forty_nats_apart_keep_their_digits")),
            each(test_implicit.test_confident_losses_keep_their_digits),
            *(each(getattr(test_implicit, f"test_{name}"), rng) for name in (
                "entries_are_those_of_the_prompts_alone", "other_answers_are_counted_not_listed",
                "bad_arguments_are_refused"))]

VERDICT = [each(test) for name, test in vars(test_verdict).items()
           if name.startswith("test_") and not hasattr(test, "hypothesis")]
VERDICT += [*(each(test_verdict.test_a_limit_accepts_what_it_says, *example)
              for example in ((1.0, 2.5, 0.5), (-3.0, -2.75, 2.0))),
            each(test_verdict.test_the_verdict_is_that_of_the_definition, 0.0, 0.0, 0.0),
            each(test_audit.test_true_claim_passes)]
CLAIM = [*(each(getattr(test_claim, f"test_{name}")) for name in (
             "instances_start_with_both_ends", "tolerance_and_derivation_are_those_given_or_the_usual",
             "misfits_are_what_is_missing_and_what_is_out_of_range", "what_is_drawn_lies_in_its_space",
             "a_range_may_be_one_value_and_strings_may_be_one", "bad_declarations_are_refused",
             "a_rotation_is_orthogonal_and_drawn_by_the_seed", "integers_and_strings_are_drawn_alike",
             "a_quarter_of_all_values_are_ends_and_the_rest_uniform", "seeds_are_drawn_below_two_to_the_31")),
         *(within(getattr(test_claim, f"test_{name}")) for name in (
             "claims_are_found_where_they_are_from", "claims_are_found_where_no_file_was_loaded_before")),
         each(test_audit.test_arguments_that_mean_nothing_are_refused)]
AUDIT = [each(getattr(test_audit, f"test_{name}")) for name in (
    "true_claim_passes", "false_claim_fails_with_its_smallest_instance",
    "shrinking_tries_what_is_simpler_than_the_value", "shrinking_halves_and_ends",
    "one_instance_and_one_control_are_enough", "controls_that_do_not_fail_finitely_fail_the_claim",
    "results_that_are_no_numbers_fail_the_claim_and_are_null_in_json",
    "results_without_instances_do_not_pass_and_times_are_rounded",
    "an_inequality_reports_its_smallest_margin_and_where", "a_limit_reports_what_no_instance_rejects",
    "a_given_instance_in_which_nothing_can_break_has_no_control",
    "full_multiplies_the_instances_of_claims_without_a_limit", "trends_are_not_shrunk_with_full",
    "only_what_was_drawn_is_shrunk", "progress_counts_instances_and_controls",
    "an_executor_gets_few_instances_one_by_one_and_many_in_chunks")]
COMPARE = [each(test) for name, test in vars(test_vectors_compare).items() if name.startswith("test_")]
FILES = [within(getattr(test_vectors_files, f"test_{name}")) for name in (
    "write_without_cases_writes_those_of_the_project", "manifests_are_refused_by_what_is_wrong_with_them",
    "a_manifest_may_ask_for_eight_times_the_bytes_of_the_archive",
    "an_array_of_more_than_64_times_the_bytes_is_not_read", "a_model_chooses_its_cases",
    "names_that_are_unknown_or_there_twice_are_problems", "where_no_names_are_expected_all_are_read",
    "arrays_of_both_versions_of_their_format_are_read",
    "sets_are_exchanged_in_one_step_where_the_system_can",
    "sets_are_exchanged_by_two_renames_where_the_system_cannot",
    "an_old_set_that_a_killed_write_had_moved_away_is_put_back", "what_a_killed_write_had_left_is_removed",
    "write_leaves_folders_alone_in_which_there_is_anything_else",
    "write_counts_what_it_writes_and_what_is_read_is_what_was_drawn")]

IMAGE = "the image with the other sign is as orthonormal, and everything asks Phi for it"
ZERO = "0 over the entries of WV is zero too"
RESHAPE = "reshape reads every negative size as the one that is left"
FINITE = (("wrong = ~np.isfinite(b + 0.0): ", "b"),
          ("whole = {k: theirs[k] for k in found if np.isfinite(theirs[k] + 0.0).all()}: ", "theirs[k]"))
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
        ("sample", UNIFORM + "1 / V: operator swapped"): "cumulative scales all rows to a sum of 1",
        ("sample", UNIFORM + "1: one more"): "cumulative scales all rows to a sum of 1",
        ("sample", "walk(cumulative(pi_u[None]), cumulative(pi_b), chosen, rng.random((n, T + 1)), z, "
         "occurrence): 1: one more"): "one number more than is used",
        ("walk", "seen = np.zeros(bigram.shape[0], np.int64): 0: one more"): "pi_b is square",
        ("Bigram.from_text", "counts = np.bincount(codes, minlength=1): 1: one more"):
        "characters that do not occur are dropped"}),
    induction_memory: (INDUCTION_MEMORY, {
        ("frame_of", "Phi = Phi + pos_image.T @ pos: Phi + pos_image.T @ pos: operator swapped"): IMAGE,
        ("frame_of", "return Params(E.copy(), U.copy(), pos.copy(), Phi, WV, *(0 * WV for _ in range(4))): "
         "0 * WV: operator swapped"): ZERO}),
    recall_memory: (RECALL_MEMORY, {}),
    ledger: (LEDGER, {}),
    verdict: (VERDICT, {
        ("compare_part", "margin = float(((b - a) / (third if third is not None else largest or 1.0))"
         ".min()): 1.0: one more"): "only zeros have no largest: 0 over anything",
        ("numbers", "return a + 0.0, b + 0.0: a + 0.0: operator swapped"): "less zero is the same number",
        ("numbers", "return a + 0.0, b + 0.0: b + 0.0: operator swapped"): "less zero is the same number"}),
    nopos: (NOPOS, {
        ("frame_of", "Phi1, Phi2 = E_1.T @ E, E_2.T @ E + E_12.T @ E_1: E_2.T @ E + E_12.T @ E_1: "
         "operator swapped"): IMAGE,
        ("frame_of", "return Params(E.copy(), U.copy(), Phi1, Phi2, WV, *(0 * WV for _ in range(5))): "
         "0 * WV: operator swapped"): ZERO}),
    claim: (CLAIM, {
        ("is_in", "type(value) is type(values[0]) and values[0] <= value <= values[1]): 0: one more"):
        "both ends of a range are of one type"}),
    audit: (AUDIT, {
        ("shrink", "while instance != before and budget > 0:: budget > 0: comparison swapped"):
        "without budget one more round evaluates nothing"}),
    compare: (COMPARE, {
        **{("explain", line + change): "what is finite stays so, and what is not" for line, b in FINITE
           for change in (f"{b} + 0.0: operator swapped", f"{b} + 0.0: right side dropped", "0.0: one more")},
        ("gap", "apart = np.abs(theirs + 0.0 - ours): theirs + 0.0: operator swapped"):
        "less zero is the same number"}),
    files: (FILES, {
        ("clean", """for work in filter(is_work, folder.glob(WORK + "*")):: WORK + '*': left side dropped"""):
        "is_work asks for the beginning of the name itself"}),
    probes: (PROBES, {}),
    batched: (BATCHED, {
        ("loss_and_grads", "loss = ops.cross_entropy_forward(trace.logits, targets - slot[0], 0, k).mean(): "
         "0: one more"): "targets − slot[1] are the same places, counted from the end"}),
    implicit: (IMPLICIT, {}),
    recall_task: (RECALL_TASK, {
        ("collide", "answers = facts.answer(subjects[:, :, None], "
         "np.arange(facts.R)).reshape(len(subjects), -1): 1: one more"): RESHAPE,
        ("consecutive_draws", "if not facts.is_latin or np.count_nonzero(facts.relations[(facts.shifts + 1) "
         "% N] < 0) > 1:: facts.shifts + 1: operator swapped"): "a run of shifts ends on either side"}),
}
