"""Every public function, each argument in turn made wrong: a right result, or an error that names it.

`CALLS` holds a good call for each public function, or several. Each of its arguments (and each field of a
NamedTuple) is replaced by variants: the same values in another layout, which must give the same bits, and
wrong values, shapes and types, which must give a finite result, or a ValueError or TypeError that begins
with the name of an argument. Warnings count as errors. Arguments are never changed.

What is not public (`INNER`) works on arguments that have been checked. `vectors.compare` is left out: wrong
arrays are what it is for.
"""

import copy
import importlib
import inspect
import re

import numpy as np
import pytest

from refimpl import associative, check, gradcheck, induction, recall, sgd
from refimpl.induction import ledger, memory, model, moments, nopos, probes, tables, task, theory
from refimpl.induction.tables import fast
from refimpl.recall import batched, implicit


def rng():
    return np.random.default_rng(7)


V, d, L, T, B = 4, 5, 6, 5, 3
BIGRAM = induction.Bigram.random(V, rng())
PARAMS = induction.Params(*(np.ascontiguousarray(w + rng().normal(0, 0.3, w.shape))
                            for w in induction.init(V, d, L, rng())))
FRAME = induction.orthonormal_frame(V, L, rng())
NOPOS = nopos.construct(nopos.orthonormal_frame(V, rng()), BIGRAM, [0], 3, 1, 2, 3, 4, 5)
BATCH = induction.sample(BIGRAM, B, T, rng(), triggers=2)
TOKENS, MASK = BATCH.tokens, np.arange(B * T).reshape(B, T) % 2 == 0
LOG_PI_B = np.log(BIGRAM.pi_b)
J = moments.pair_moments(BIGRAM.pi_u, BIGRAM.pi_b, BIGRAM.pi_b[0], 0, 4)
A, B_TABLE = moments.first_gradient(J)[:2]
CONSTRUCTED = induction.construct(FRAME, BIGRAM, [0, 2], 1.0, 2.0, 3.0)
FACTS = recall.Facts.latin(12, 3, rng())
PROMPTS = recall.sample(FACTS, 2, 4, rng())
RPARAMS = recall.Params(*(w + rng().normal(0, 0.1, w.shape) for w in recall.construct(FACTS, 2, 4.0)))
RTOKENS, TARGETS, SLOT = PROMPTS.infer()
W3 = np.stack([np.arange(5.0), np.ones(5), -np.arange(5.0)])
U3, V2 = np.array([0.3, 0.2, 0.1]), np.array([0.25, 0.15])
U_RECALL = np.array([0.3, 0.2, 0.3])
RELATION = FACTS.relation(np.arange(3)[:, None], np.arange(2))
ANSWERS = FACTS.answer(np.arange(3)[:, None], np.arange(3))
PAIRS = rng().normal(0, 1, (2, 3, 4))
KNOWN = implicit.seen(PROMPTS)
INDEX = implicit.index(KNOWN, PROMPTS)
ON_POSITIONS = implicit.Steps(rng().normal(0, 1, 5), rng().normal(0, 1, 6))
ON_ENTRIES = implicit.Steps(*(rng().normal(0, 1, len(ids)) for ids in KNOWN))
_, GRADS = induction.loss_and_grads(PARAMS, TOKENS, MASK)


def squares(x):
    return sum((array ** 2).sum() for array in gradcheck.fields(x))


CALLS = {
    induction.Bigram.from_counts: dict(counts=np.arange(1.0, 10).reshape(3, 3), chars="abc", prior=0.5),
    induction.Bigram.from_text: dict(text="the cat sat", V=4, prior=0.1),
    induction.Bigram.random: dict(V=3, rng=rng),
    induction.sample: dict(bigram=BIGRAM, n=2, length=5, rng=rng, triggers=np.array([0, 2]),
                           outputs=BIGRAM.pi_b, drawn=False),
    induction.init: dict(V=3, d=4, L=5, rng=rng),
    induction.orthonormal_frame: dict(V=3, L=4, rng=rng, encoding="absolute"),
    induction.construct: dict(frame=FRAME, bigram=BIGRAM, triggers=np.array([0, 2]), b1=1.0, b2=2.0, bo=3.0,
                              encoding="relative", train_length=None),
    induction.forward: dict(params=PARAMS, tokens=TOKENS[0], encoding="relative"),
    induction.loss: dict(params=PARAMS, tokens=TOKENS, mask=MASK, encoding="absolute"),
    induction.loss_and_grads: dict(params=PARAMS, tokens=TOKENS, mask=MASK, encoding="absolute"),
    tables.loss_and_grads: dict(params=PARAMS, tokens=TOKENS, mask=MASK, encoding="relative"),
    tables.logits: dict(params=PARAMS, tokens=TOKENS[0, :-1]),
    tables.histories: dict(params=PARAMS, tokens=TOKENS[0, :-1]),
    ledger.logits: dict(params=PARAMS, tokens=TOKENS[0, :-1]),
    ledger.scores: dict(params=PARAMS, tokens=TOKENS[0, :-1]),
    nopos.orthonormal_frame: dict(V=3, rng=rng),
    nopos.construct: dict(frame=nopos.orthonormal_frame(V, rng()), bigram=BIGRAM, triggers=np.array([0]),
                          kappa=3, b1=1.0, beta=2.0, gamma=3.0, b3=4.0, bo=5.0),
    nopos.forward: dict(params=NOPOS, tokens=np.array([3, 0, 1, 0])),
    moments.pair_moments: dict(pi_u=BIGRAM.pi_u, pi_b=BIGRAM.pi_b, pi_o=BIGRAM.pi_b[0], q=0, T=4),
    theory.previous_token_attention: dict(T=5, b1=1.0, encoding="absolute", train_length=3),
    theory.in_context_mass: dict(z=TOKENS[0], triggers=np.array([0, 2]), b1=1.0, b2=2.0,
                                 encoding="relative", train_length=None),
    theory.logits: dict(tokens=TOKENS[0], log_pi_b=LOG_PI_B, triggers=np.array([0, 2]), b1=1.0, b2=2.0,
                        bo=3.0, encoding="relative", train_length=None),
    theory.hard_mass: dict(tokens=np.array([0, 1, 0, 2, 0]), V=3, b2=2.0),
    theory.hard_remainder: dict(T=5, b1=2.0, b2=3.0),
    theory.hijack_margin: dict(C=4, C_u=2, C_w=1, n_u=3, n_w=np.array([1, 2]), T=12, gap=0.5, b2=2.0, bo=3.0),
    theory.hijack: [dict(repetitions=2, length=9, gap=np.array([0.5, 1.0]), b2=2.0, bo=3.0,
                         continuations=continuations) for continuations in (None, 3)],
    theory.without_positions: dict(tokens=np.array([3, 0, 1, 0]), log_pi_b=LOG_PI_B, triggers=np.array([0]),
                                   b1=1.0, beta=2.0, gamma=3.0, b3=4.0, bo=5.0),
    theory.sharp_strengths: dict(T=8),
    theory.sharp_bounds: dict(T=8),
    theory.embedding_slope: dict(),
    theory.gap_constant: dict(log_pi_b=LOG_PI_B, z=1, c=np.arange(4.0), h=np.ones(4) / 4, g=np.ones(4),
                              bo=2.0),
    moments.first_gradient: dict(J=J),
    moments.second_gradient: dict(J=J, A=A, B=B_TABLE),
    moments.third_gradient_by_values: dict(J=J, B=B_TABLE, encoding="absolute"),
    moments.third_gradient_by_keys: dict(J=J, A=A, d=np.arange(4.0), encoding="relative"),
    probes.WK1: [dict(params=CONSTRUCTED, encoding="relative", train_length=3),
                 dict(params=PARAMS._replace(WK1=np.eye(d)), encoding="absolute", train_length=None)],
    probes.WK2: dict(params=CONSTRUCTED, triggers=np.array([0, 2])),
    probes.WO: dict(params=CONSTRUCTED),
    probes.WF: dict(params=CONSTRUCTED, bigram=BIGRAM),
    probes.effective_strengths: dict(params=CONSTRUCTED, triggers=2, encoding="relative", train_length=None),
    associative.write: dict(u=PAIRS[0], v=PAIRS[1]),
    associative.read: dict(memory=np.eye(4), u=PAIRS[0], v=PAIRS[1]),
    associative.moments: dict(N=3, d=4),
    associative.unit_moments: dict(N=3, d=4),
    associative.recall_rate: dict(N=9, d=32),
    associative.capacity: dict(d=24, recall=0.95),
    recall.Facts.latin: dict(N=7, R=3, rng=rng),
    recall.Facts.months: dict(R=3),
    recall.Facts.pitches: dict(R=3),
    recall.Facts: dict(pi=FACTS.pi, sigma=FACTS.sigma, shifts=FACTS.shifts),
    recall.sample: dict(facts=FACTS, n=2, count=3, rng=rng, collision_free=False),
    recall.construct: dict(facts=FACTS, n=2, lam=4.0, activation="relu", bias=0.5),
    recall.init: dict(N=4, R=3, n=2, d=3, dp=2, m=5, rng=rng),
    recall.position_logits: dict(params=RPARAMS, T=5),
    recall.with_position_logits: dict(params=RPARAMS, w=np.arange(5.0)),
    FACTS.answer: dict(s=np.array([[0], [3]]), r=np.array([0, 2])),
    FACTS.relation: dict(s=np.array([[0], [3]]), a=np.array([0, 2])),
    recall.forward: dict(params=RPARAMS, tokens=RTOKENS[0], activation="square"),
    recall.loss: dict(params=RPARAMS, tokens=RTOKENS, targets=TARGETS, slot=SLOT, activation="square"),
    recall.loss_and_grads: dict(params=RPARAMS, tokens=RTOKENS, targets=TARGETS, slot=SLOT,
                                activation="relu"),
    batched.loss_and_grads: dict(params=RPARAMS, tokens=RTOKENS, targets=TARGETS, slot=SLOT,
                                 activation="relu"),
    batched.facts_as_prompts: dict(facts=FACTS),
    implicit.seen: dict(prompts=PROMPTS),
    implicit.index: dict(known=KNOWN, prompts=PROMPTS),
    implicit.forward: dict(weights=ON_ENTRIES, facts=FACTS, prompts=PROMPTS, lam=4.0, index=INDEX),
    implicit.loss_and_grads: [dict(weights=ON_ENTRIES, facts=FACTS, prompts=PROMPTS, lam=4.0, index=INDEX),
                              dict(weights=ON_POSITIONS, facts=FACTS, prompts=PROMPTS, lam=4.0, index=None)],
    recall.theory.infer_logits: dict(u=U3, v=V2, relation_of=RELATION, R=3, lam=4.0),
    recall.theory.recall_logits: dict(u=U3, alpha_r=0.2, answer_of=ANSWERS, r=1, N=12, lam=4.0),
    recall.theory.infer_loss: dict(u=U3, v=V2, R=3, lam=4.0),
    recall.theory.recall_loss: dict(u=U_RECALL, alpha_r=0.2, N=12, R=3, lam=4.0),
    recall.theory.flow: dict(w=np.arange(5.0), R=3, lam=4.0),
    recall.theory.recall_flow: dict(w=np.arange(6.0), N=12, R=3, lam=4.0),
    recall.theory.gap_rates: dict(u=U3, v=V2, R=3, lam=4.0),
    recall.theory.query_rate: dict(u=U3, v=V2, R=3, lam=4.0),
    recall.theory.growth_rates: dict(n=2, R=3, lam=4.0, u=0.2),
    recall.theory.infer_end_loss: dict(R=3, lam=4.0),
    recall.theory.recall_end_point: dict(N=12, R=3, lam=4.0),
    recall.theory.gradient_support: dict(tokens=RTOKENS, V=27, L=6),
    recall.theory.trajectory: [dict(w0=np.arange(5.0), times=np.array([0.5, 1.0]), R=3, lam=4.0, N=None,
                                    factors=np.arange(5.0)),
                               dict(w0=np.arange(6.0), times=np.array([0.0, 1.0]), R=3, lam=4.0, N=12)],
    recall.theory.score_factors: dict(n=2, M=6, k=3),
    recall.theory.training_law: dict(n=2, times=np.array([1.0, 9.0]), R=3, lam=4.0),
    recall.theory.transfer_law: dict(w0=np.arange(5.0), pair=1, times=np.array([1.0, 9.0]), M=2, R=3,
                                     lam=4.0),
    recall.theory.drift_law: dict(n=2, M=6, k=3, N=12, R=3, lam=4.0),
    recall.theory.recall_floor: dict(N=12, R=3, lam=4.0),
    recall.theory.leading_pair: dict(w=W3),
    recall.theory.leader_bounds: dict(w=W3, i=np.array([0, 1, 0]), R=3, lam=4.0),
    recall.theory.decided_loss: dict(R=3, lam=4.0),
    recall.theory.leader_loss_bound: dict(w0=np.array([2.0, 2.0, 1.0, 0.0, 0.5]), times=np.array([0.0, 9.0]),
                                          R=3, lam=4.0),
    recall.theory.context_bounds: dict(w=np.arange(6.0), N=12, R=3, lam=4.0),
    recall.theory.trap_law: dict(n=2, N=12, R=3, lam=4.0),
    recall.theory.way_back: dict(start=0.01, end=0.1, N=12, R=3, lam=4.0, bias=0.2),
    recall.theory.noisy_accuracy: dict(p=0.3, n=2, N=12, R=3),
    recall.theory.noisy_loss: dict(u=U3, v=V2, p=0.3, R=3, lam=4.0),
    recall.theory.collision_free_probability: dict(n=2, N=12, R=3),
    recall.theory.population_bounds: dict(n=2, N=12, R=3, lam=4.0),
    recall.theory.collision_loss: dict(u=U3, v=V2, N=12, R=3, lam=4.0),
    recall.theory.relu_recall_logits: dict(u=U3, alpha_r=0.2, answer_of=ANSWERS, r=1, N=12, lam=4.0,
                                           bias=0.1),
    recall.theory.relu_recall_loss: dict(x=np.array([0.3, 0.6]), N=12, R=3, lam=4.0, bias=0.2),
    sgd.step: dict(params=PARAMS, grads=GRADS, buffers=GRADS, lr=0.1, momentum=0.9, weight_decay=0.01,
                   trained=("WK1", "WO")),
    gradcheck.complex_step: dict(f=squares, x=PAIRS[0]),
    gradcheck.central_difference: [dict(f=squares, x=x, step=1e-3) for x in (PAIRS[0], ON_POSITIONS)],
    gradcheck.adjoint_gap: dict(forward=lambda x: x ** 2, backward=lambda x, dy: 2 * x * dy, x=PAIRS[0],
                                rng=rng),
    gradcheck.relative_error: dict(a=PAIRS[0], b=PAIRS[1]),
}

theory_logits, limits, embeddings, recall_logits, recall_dynamics, *recall_others = (
    importlib.import_module(f"refimpl.{name}") for name in (
        *(f"induction.theory.{name}" for name in ("logits", "limits", "embeddings")),
        *(f"recall.theory.{name}" for name in ("logits", "dynamics", "samples", "convergence", "noise"))))
recall_samples, recall_convergence, recall_noise = recall_others
# Functions that others call on arguments that have been checked; and `sgd.train`, whose batches only the
# caller's own loss can judge.
INNER = {
    associative: "leading_axes",
    gradcheck: "by_coordinate fields real_fields numbers like imaginary", sgd: "train norm",
    task: "trigger_ids cumulative", memory: "log_bigram frame_of", model: "forward_pass backward_pass",
    fast: "scores_forward scores_backward logits_forward logits_backward tables_forward "
          "tables_backward",
    ledger: "", nopos: "frame_of", moments: "joint table averaging centring by_place",
    theory_logits: "softmax one_key lower match attention memory_length causal_softmax", limits: "",
    embeddings: "", probes: "read",
    recall.task: "distinct collide consecutive_draws inverse", recall.memory: "",
    recall.model: "forward_pass backward_pass position_row", batched: "forward_pass backward_pass",
    implicit: "entries run scores",
    recall_logits: "answer_classes infer_margin losing peak softmax", recall_dynamics: "end_residual",
    recall_samples: "", recall_convergence: "pairs", recall_noise: "second_order"}

# What may be infinite, by its docstring: log 0, and a count that no number reaches; and the error of a
# solver that gives up.
INFINITE = (theory.logits, theory.without_positions, theory.hijack, gradcheck.adjoint_gap,
            gradcheck.relative_error)
ERRORS = {recall.theory.trajectory: RuntimeError}


def layouts(array):
    """The same values otherwise in memory."""
    spread = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
    spread[tuple(slice(None, None, 2) for _ in array.shape)] = array
    frozen = array.copy()
    frozen.setflags(write=False)
    return {"Fortran order": np.asfortranarray(array),
            "strided": spread[(slice(None, None, 2),) * array.ndim],
            "backwards": array[..., ::-1].copy()[..., ::-1], "read-only": frozen,
            "other byte order": array.astype(array.dtype.newbyteorder())}


def wrong_arrays(array):
    """Other types, shapes and values."""
    yield from {"None": None, "string": "x", "dict": {}, "object": array.astype(object),
                "text": array.astype(str), "zero size": array[:0], "another axis": array[None],
                "one axis less": array[0], "one row less": array[:-1],
                "one row more": array[[*range(len(array)), 0]],
                "ragged": [[1], [1, 2]], "scalar": 3}.items()
    for value in (np.nan, np.inf, -np.inf):
        changed = array.astype(float)
        changed.flat[-1] = value
        yield str(value), changed
    for dtype in {np.dtype(np.int64), array.dtype}:
        for value in (-1, 2 ** 62, -2 ** 63, array.shape[0] + 99):
            changed = array.astype(dtype)
            changed.flat[-1] = value
            yield f"{value}, {dtype}", changed
    yield "complex", array + 1j
    yield "bool", array.astype(bool)
    yield "float32", array.astype(np.float32)


def wrong_scalars():
    """What is no number, or one that hardly any argument takes."""
    return {"None": None, "string": "x", "list": [1, 2], "dict": {}, "bool": True, "array": np.ones((2, 2)),
            "empty": np.array([]), "nan": np.nan, "inf": np.inf, "-inf": -np.inf, "-1": -1, "0": 0,
            "2^62": 2 ** 62, "10^400": 10 ** 400, "fraction": 1.5, "complex": 1j, "object": object()}.items()


def variants(name, value):
    """Yield (name, kind, is the same, other value) for one argument, or the fields of a NamedTuple."""
    if hasattr(value, "_fields"):
        for field, part in zip(value._fields, value):
            for inner, kind, is_same, other in variants(field, part):
                yield inner, kind, is_same, value._replace(**{field: other})
    if isinstance(value, np.ndarray):
        for kind, other in layouts(value).items():
            yield name, kind, True, other
        for kind, other in wrong_arrays(value):
            yield name, kind, False, other
    else:
        for kind, other in wrong_scalars():
            yield name, kind, False, other


def call(function, arguments):
    """The result with fresh generators; asserts that no array among the arguments was changed."""
    given = {name: rng() if value is rng else value for name, value in arguments.items()}
    before = copy.deepcopy({name: value for name, value in arguments.items() if value is not rng})
    try:
        return function(**given)
    finally:
        for name, value in before.items():
            assert same(value, given[name]), f"{name} was changed"


def leaves(value):
    """The numbers in a result, in order."""
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item)]
    if hasattr(value, "__dataclass_fields__"):
        return [leaf for name in value.__dataclass_fields__ for leaf in leaves(getattr(value, name))]
    return [np.asarray(value)]


def native(array):
    """The array in this machine's byte order."""
    return array.astype(array.dtype.newbyteorder("="))


def same(a, b):
    """Bit for bit, whatever the layout."""
    try:
        return all(x.shape == y.shape and (x.dtype.kind == "O" or native(x).tobytes() == native(y).tobytes())
                   for x, y in zip(leaves(a), leaves(b), strict=True))
    except ValueError:
        return a is b or a == b


def is_right(function, result):
    """Whether no number in a result is NaN, or infinite where it is not said to be."""
    refused = np.isnan if function in INFINITE else lambda leaf: ~np.isfinite(leaf)
    return not any(leaf.dtype.kind in "fc" and refused(leaf).any() for leaf in leaves(result))


def names_in(arguments):
    """The names of the arguments and of the fields of NamedTuples among them."""
    return {"params", *arguments, *(field for value in arguments.values()
                                    for field in getattr(value, "_fields", ()))}


def complaint(function, arguments, right, kind, is_same, changed):
    """What is wrong with the answer to a changed argument, or None."""
    try:
        result = call(function, changed)
    except (ValueError, TypeError) as error:
        if is_same and kind != "other byte order":
            return str(error)
        named = names_in(arguments).intersection(re.findall(r"\w+", str(error).partition(":")[0]))
        return None if named else f"{type(error).__name__}: {error}"
    except Exception as error:
        return None if type(error) is ERRORS.get(function) else f"{type(error).__name__}: {error}"
    if is_same:
        return None if same(result, right) else "another result"
    return None if is_right(function, result) else f"not finite: {result}"


@pytest.mark.jit
@pytest.mark.parametrize("function", CALLS, ids=lambda f: f"{f.__module__[8:]}.{f.__qualname__}")
def test_wrong_arguments_are_named_and_none_is_changed(function, record_property):
    tried, violations = 0, []
    for arguments in CALLS[function] if isinstance(CALLS[function], list) else [CALLS[function]]:
        right = call(function, arguments)
        for argument, value in arguments.items():
            for name, kind, is_same, other in variants(argument, value):
                tried += 1
                words = complaint(function, arguments, right, kind, is_same, {**arguments, argument: other})
                violations += [f"{name}, {kind}: {words}"] if words else []
    record_property("tried", tried)
    assert not violations, "\n".join([f"{len(violations)} of {tried}", *violations])


@pytest.mark.jit
@pytest.mark.parametrize("module", INNER, ids=lambda module: module.__name__[8:])
def test_every_public_function_is_called(module):
    own = {name: function for name, function in vars(module).items()
           if inspect.isfunction(function) and function.__module__ == module.__name__
           and not name.startswith("check_")}
    assert {name for name, function in own.items() if function not in CALLS} == set(INNER[module].split())


@pytest.mark.parametrize("function", [f for f in CALLS if hasattr(f, "kinds")], ids=lambda f: f.__qualname__)
def test_what_a_formula_declares_is_what_it_refuses(function):
    """One step beyond each declared bound, an axis more, and nothing where something must be."""
    arguments = CALLS[function][0] if isinstance(CALLS[function], list) else CALLS[function]
    sizes = {}
    for name, kind in function.kinds.items():
        kind.accept(name, arguments[name], sizes)
        bounds = {key: eval(bound, {}, sizes) if isinstance(bound, str) else bound
                  for key, bound in kind.bounds.items()}
        wrong = [np.full_like(arguments[name], value) if kind.shape else value for value in
                 (bounds.get("low", 0) - 1, bounds.get("high", check.LARGEST) + 1)
                 if kind.test in (check.integer, check.integers, check.real, check.reals)
                 and np.isfinite(value)]
        wrong += [np.zeros((1, 1, 1, 1))] * bool(kind.shape) + [None] * (not kind.optional)
        for value in wrong:
            with pytest.raises(ValueError, match=f"^{name}: "):
                function(**{**arguments, name: value})


@pytest.mark.parametrize("system", [induction, recall])
def test_every_formula_declares_its_arguments(system):
    for name in system.theory.__all__:
        formula = getattr(system.theory, name)
        assert (inspect.isclass(formula) or not inspect.signature(formula).parameters
                or hasattr(formula, "kinds"))
