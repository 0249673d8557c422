"""A tour of system R: how attention in front of a memory of facts infers a relation and recalls.

A lesson of 30 to 45 minutes for readers who know matrices and probabilities. Run it cell by cell, in
order (the lines `# %%` cut it into cells for editors that know them), change numbers, run again; or from
top to bottom in half a minute:

    python scripts/tour_recall.py

Exercises stand where they arise. Their answers are in the cells at the end, each with an assert.
"""

# %% Set up
import os
import subprocess
import sys
from itertools import combinations

import numpy as np

from refimpl import associative, gradcheck, ops, recall, sgd
from refimpl.recall.task import INTERVALS, MONTHS, PITCHES

np.set_printoptions(precision=3, suppress=True, linewidth=90)
rng = np.random.default_rng(1)


def bars(weights, names):
    """Print weights between 0 and 1 as bars, one line each."""
    for name, weight in zip(names, weights):
        print(f"    {name:<15} {weight:5.3f}  {'#' * round(40 * weight)}".rstrip())


# %% 1. The task, on eight tokens
# Three pairs of notes, all a fixed interval apart, and a fourth note:
#
#     C E   D F-sharp   G B   A ...?
#
# You answer in two steps. First you infer the interval from the pairs: a major third. Then you recall
# the note a major third above A. Written down, the second step is a prompt of eight tokens:
#
#     s_0 a_0   s_1 a_1   s_2 a_2   s_3 r          and after it a_3 = g(s_3, r)
#
# s are subjects, a answers, r the relation, g the table of facts. Nobody says r in the first step.
print("\n== 1. The task, on eight tokens\n")
facts = recall.Facts.pitches()
subjects = np.array([PITCHES.index(note) for note in ("C", "D", "G", "A")])
shown = np.array([PITCHES.index(note) for note in ("E", "F sharp", "B")])
relations = facts.relation(subjects[:3], shown)
print("relations of the three pairs: ", ", ".join(INTERVALS[r] for r in relations))
answers = facts.answer(subjects, relations[0])
print(f"a {INTERVALS[relations[0]]} above A:         ", PITCHES[answers[3]])
tokens, target, _ = recall.Prompts(12, 4, subjects[None], relations[:1], answers[None]).recall()
print("the eight tokens, as ids:     ", tokens[0], " and the target:", target[0])
assert len(set(relations)) == 1 and PITCHES[answers[3]] == "C sharp" and tokens.shape == (1, 8)

# Ids 0 to 11 are the notes as subjects, 12 to 23 as answers, 24 to 27 the four smallest intervals.
#
# The rest of the lesson uses months, two pairs, and four relations: one to four months later. Its question:
#
#     January April   May August   October ...?
#
# The table has the property that makes the task fair: it is Latin. Each relation leads to each month
# once, and no month reaches another by two relations. So neither s nor a alone says anything of r.
facts = recall.Facts.months()
N, R = facts.N, facts.R
RELATIONS = ["1 month later", *(f"{r} months later" for r in range(2, R + 1))]
table = facts.answer(np.arange(N)[:, None], np.arange(R))
print("\nfacts g(s, r):  r =" + "".join(f"{r:>6}" for r in range(R)))
for s in range(N):
    print(f"{MONTHS[s]:>17}  " + "".join(f"{MONTHS[a][:3]:>6}" for a in table[s]))
assert (np.sort(table, axis=0) == np.arange(N)[:, None]).all()      # claim R1: columns are permutations

# Exercise 1. "March May, August October, December ...?" Which relation, which answer?

# %% 2. A memory, written and read
# All that the model knows it keeps in matrices of one kind. To remember that v_i leads to u_i, add up
# outer products, W = sum_i u_i v_i^T; to read at v_k, multiply: W v_k = sum_i u_i (v_i . v_k). Orthonormal
# v give back u_k alone, but there are only d of them in d dimensions. Random ones are nearly orthogonal,
# and there are as many as one likes; what leaks in grows with their number (claims M1, M2).
print("\n== 2. A memory, written and read\n")
d = 32
u, v = np.linalg.qr(rng.normal(size=(2, d, d)))[0]
scores = associative.read(associative.write(u, v), u, v)
print(f"{d} orthonormal pairs in {d} dimensions: own score {scores[0, 0]:.3f}, largest wrong score "
      f"{abs(scores - np.eye(d)).max():.0e}\n")
assert abs(scores - np.eye(d)).max() < 1e-13
print("random pairs    spread of a wrong score    recalled")
print("               predicted      observed")
for pairs in (8, 32, 128, 512):
    u, v = rng.normal(0, d ** -0.5, (2, 4096 // pairs, pairs, d))       # several memories of that size
    scores = associative.read(associative.write(u, v), u, v)
    wrong = scores[:, ~np.eye(pairs, dtype=bool)].std()
    predicted = associative.moments(pairs, d).var_cross ** 0.5
    recalled = np.mean(scores.argmax(axis=1) == np.arange(pairs))
    print(f"{pairs:12}   {predicted:9.3f} {wrong:13.3f} {recalled:11.0%}")
    assert abs(wrong / predicted - 1) < 0.1

# Now a fact has three parts. Let us store "s and a together lead to r": key e_s + e_a, value e_r. A
# linear memory fails completely, and in a Latin table one sees why: summed over all facts of a relation,
# every month is in the key once as subject and once as answer, whatever the relation.
token_names = [*MONTHS, *MONTHS, *RELATIONS]        # token ids: 12 subjects, 12 answers, 4 relations
V = len(token_names)
one_hot = np.eye(V)
s, r = np.divmod(np.arange(N * R), R)               # all 48 facts
keys, values = one_hot[s] + one_hot[N + facts.answer(s, r)], one_hot[2 * N + r]
x = (one_hot[MONTHS.index("January")] + one_hot[N + MONTHS.index("April")]) / 2
linear = associative.write(values, keys) @ x
square = values.T @ (keys @ x) ** 2
print("\nJanuary and April are read, half and half. Scores of the four relations:")
print("    linear memory         ", linear[2 * N:])
print("    square in between     ", square[2 * N:], " January + 3 = April: correct")
assert np.allclose(linear[2 * N:], linear[2 * N]) and square[2 * N:].argmax() == 2

# So the memory is an MLP: one hidden unit for each fact, which squares. Both halves of its key present
# make 1, one half makes 1/4, and two halves in two units make 1/4 + 1/4.

# %% 3. The forward pass, step by step
# `refimpl/recall/model.py` is one layer of attention, from the last token to the whole prompt, and then
# that MLP. Its weights are written by hand; WKQ, which the attention reads, is still zero.
print("\n== 3. The forward pass, step by step\n")
lam = 10.0
params = recall.construct(facts, n=2, lam=lam)
for name, array in params._asdict().items():
    print(f"    {name:<4} {array.shape}")
QUESTION = ["January", "April", "May", "August", "October"]
months = np.array([MONTHS.index(name) for name in QUESTION])
z = months + [0, N, 0, N, 0]                        # answers have token ids of their own
content = params.E[z]
rows = np.hstack([content, params.P[:5]])
scores = rows @ (rows[-1] @ params.WKQ)
attention = ops.softmax_forward(scores)
x = attention @ content
hidden = (params.W1 @ x + params.b1) ** 2
logits = params.U @ (params.W2 @ hidden)
print(f"\ntokens      {z}")
print(f"rows        {rows.shape}   token and position of each, one-hot")
print(f"scores      {scores}")
print(f"attention   {attention}")
print(f"x           {x.shape}   the weight on every token; not zero at", np.flatnonzero(x))
print(f"hidden      {hidden.shape}   one unit for each fact and step; {np.count_nonzero(hidden)} respond:")
for value, count in zip(*np.unique(hidden[hidden > 0].round(6), return_counts=True)):
    print(f"                 {count:3} units with {value:.2f} = ({np.sqrt(value):.1f})^2")
print("logits of the relations:")
for name, logit in zip(RELATIONS, logits[2 * N:]):
    print(f"    {name:<15} {logit:.3f}")
trace = recall.forward(params, z)
assert gradcheck.relative_error(trace.logits, logits) < 1e-14

# %% 4. The closed form beside it: pairs vote
# Squaring x_s + x_a leaves 2 x_s x_a: each subject votes, together with each answer, for the relation
# between them, if there is one (claim R2: `python -m refimpl explain R2`). The pairs of the prompt vote
# for the hidden relation; a subject with another's answer can only vote for a wrong one, or not at all.
print("\n== 4. The closed form beside it: pairs vote\n")
relation_of = facts.relation(months[0::2, None], months[1::2])
print("relation between subject (row) and answer (column); . for none")
print("              April  August")
for name, row in zip(QUESTION[0::2], relation_of):
    print(f"    {name:<9}" + "".join(f"{'.' if r < 0 else r:>6}" for r in row))
predicted = recall.theory.infer_logits(attention[0::2], attention[1::2], relation_of, R, lam)
print("predicted logits", predicted)
print("the model's     ", logits[2 * N:])
assert gradcheck.relative_error(predicted, logits[2 * N:]) < 1e-14 and predicted.argmax() == 2

# So without any training the model infers "3 months later". Append it, and ask for the answer:
told = np.append(z, 2 * N + 2)
alpha = recall.forward(params, told).attention
answers = recall.forward(params, told).logits[N:2 * N]
rows_of = table[months[0::2]]
assert gradcheck.relative_error(recall.theory.recall_logits(alpha[0:5:2], alpha[-1], rows_of, 2, N, lam),
                                answers) < 1e-14
print("\nrecall, every token weighing 1/6; the largest logits:")
for a in np.argsort(-answers, kind="stable")[:4]:
    print(f"    {MONTHS[a]:<9} {answers[a]:.3f}")
assert abs(answers[months[[1, 3]]] - answers[0]).max() < 1e-14

# A tie: January, the right answer, and April and August, which the prompt has just said. Nothing tells the
# model yet whose answer is wanted. That is what fine-tuning has to teach: where to look.
#
# Exercise 2. "January April, February May, October ...?", all weights 1/5: the logits of the relations?
# Exercise 3. With half of the attention on October and half on the relation, by how much does the right
# answer beat the rest of October's row?

# %% 5. One derivative by hand
# Undo the forward pass from the last line to the first: each line turns "how the loss depends on my
# output" (d + name) into "how it depends on my input". Loss: -log softmax over the four relations.
print("\n== 5. One derivative by hand\n")
p = ops.softmax_forward(logits[2 * N:])
dlogits = np.zeros(V)
dlogits[2 * N:] = p - [0, 0, 1, 0]                          # cross-entropy
dhidden = (dlogits @ params.U) @ params.W2                  # logits = U W2 hidden
dx = (dhidden * 2 * (params.W1 @ x)) @ params.W1            # hidden = (W1 x)^2
dattention = content @ dx                                   # x = sum_i attention_i content_i
dscores = attention * (dattention - dattention @ attention)     # softmax
print("d logits    ", dlogits[2 * N:])
print("d hidden    ", f"({np.count_nonzero(dhidden)} units)")
print("d x         ", dx[z], " at the prompt's tokens")
print("d attention ", dattention)
print("d scores    ", dscores)

# Is it right? The complex step: for a smooth f, f(w + ih) = f(w) + ih f'(w) + ..., so that f' is the
# imaginary part over h; nothing is subtracted, so h can be 1e-30 and no digit is lost. Positions are
# one-hot: the scores w can be written into one row of WKQ, the position logits.


def with_scores(w):
    """The model, its attention scores set to w by position."""
    return recall.with_position_logits(recall.Params(*(field.astype(w.dtype) for field in params)), w)


infer = z[None], np.array([2 * N + 2]), (2 * N, V)
exact = gradcheck.complex_step(lambda w: recall.loss(with_scores(w), *infer), np.zeros(5))
print("complex step", exact)
assert gradcheck.relative_error(exact, dscores) < 1e-13

# Theory has the same five numbers, without any model: minus the gradient is the flow of claim R5. Both
# members of a pair are pulled up alike, and the query, which infers nothing, is let go (R7).
flow = recall.theory.flow(np.zeros(5), R, lam)
print("minus flow  ", -flow)
assert gradcheck.relative_error(-flow, dscores) < 1e-13 and flow[-1] < 0

# Exercise 4. Fine-tune all of WKQ by one step from zero, on this prompt, and not only that row. How many
# times further do the scores move?

# %% 6. One pair wins. Predicted, then observed
# Where all pairs weigh the same, the flow keeps them so, but like a pencil on its tip: linearised (R8), a
# difference between pairs grows, a gap within a pair shrinks. So from any other start one pair should
# win, with equal weights within it: the pairwise pattern. Which one? To first order the one that is ahead,
# w_s + w_a larger at the start; a start within a hair of the tie can go the other way.
print("\n== 6. One pair wins\n")
rates = recall.theory.growth_rates(2, R, lam)
print(f"rates at uniform attention: between pairs {rates.between:+.3f}, within a pair {rates.within:+.3f}")
w0, lr, times = rng.normal(0, 0.1, 5), 0.01, (0, 2, 4, 8, 16, 64)
w, observed = w0.copy(), []
for step in range(round(times[-1] / lr) + 1):
    if step * lr in times:
        observed.append(w.copy())
    w -= lr * recall.position_logits(recall.loss_and_grads(with_scores(w), *infer)[1], 5)
predicted = recall.theory.trajectory(w0, np.array(times), R, lam)
print("\nattention, by SGD on the model and by the differential equation (R5):")
print("  time        " + "".join(f"{name[:3]:>8}" for name in QUESTION))
for time, *both in zip(times, observed, predicted):
    for name, alpha in zip(("SGD", "flow"), map(ops.softmax_forward, both)):
        print(f"{time:6}  {name:<6}" + "".join(f"{weight:8.4f}" for weight in alpha))
gap = abs(np.array(observed) - predicted).max()
print(f"largest difference of the scores {gap:.0e}; it is of first order in the step, {lr} (R10)")
assert gap < lr

# Six random starts, each followed by SGD: does the pair that is ahead at the start win?
print("\nstart:   January + April   May + August   predicted   won")
for _ in range(6):
    w = rng.normal(0, 0.1, 5)
    start = w[0] + w[1], w[2] + w[3]
    for step in range(200):
        w -= 0.1 * recall.position_logits(recall.loss_and_grads(with_scores(w), *infer)[1], 5)
    alpha = ops.softmax_forward(w)
    end = alpha[0] + alpha[1], alpha[2] + alpha[3]
    ahead, winner = QUESTION[2 * np.argmax(start)], QUESTION[2 * np.argmax(end)]
    print(f"{start[0]:24.3f} {start[1]:14.3f}   {ahead:<9}   {winner}")
    assert ahead == winner and max(end) > 0.8

# Exercise 5. The best that inference can reach is half and half on one pair. How large must lam be for a
# loss of 0.01 there? (R9: `print(recall.theory.infer_end_loss.__doc__)`)

# %% 7. Inside a kernel, with a debugger
# The kernels in `refimpl/ops.py` are compiled, and a debugger does not stop in compiled code. With
# NUMBA_DISABLE_JIT=1 the same lines run as plain Python. In a terminal:
#
#     NUMBA_DISABLE_JIT=1 python -m pdb scripts/tour_recall.py
#     (Pdb) from refimpl import ops
#     (Pdb) break ops.square_backward
#     (Pdb) continue
#
# One sees the program stop at the first line of the backward of x^2; `next` goes on by one line, `args`
# shows what came in, `where` who called, `up` leads to the line of `backward_pass` in the model. An
# editor's debugger does the same, if the variable is set in its launch settings. Such a dialogue,
# recorded now:
print("\n== 7. Inside a kernel, with a debugger\n")
KEYS = ["step", "args", "next", "next", "next", "p i, x[i], dh[i]", "return", "p dx", "continue"]
dialogue = subprocess.run(
    [sys.executable, "-c", "import pdb, numpy as np; from refimpl import ops; "
     "pdb.run('ops.square_backward(np.array([0.2, 0.4]), np.array([1.0, 10.0]))', globals())"],
    env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, input="\n".join(KEYS), text=True,
    capture_output=True, check=True)
for key, answer in zip(KEYS, dialogue.stdout.split("(Pdb) ")[1:]):
    print(f"(Pdb) {key}")
    print("\n".join(line.replace(os.path.dirname(ops.__file__), "refimpl") for line in answer.splitlines()))
assert "square_backward" in dialogue.stdout and "array([0.4, 8. ])" in dialogue.stdout

# %% 8. Fine-tuning on the months
# Now the whole of it: all of WKQ from zero, both steps, 24 random prompts of months, SGD. The memory
# stays as it is.
print("\n== 8. Fine-tuning on the months\n")


def both_steps(params, infer, recall_step):
    """Loss and gradients of the two steps together."""
    losses, grads = zip(*(recall.loss_and_grads(params, *step) for step in (infer, recall_step)))
    return sum(losses), params._make(map(sum, zip(*grads)))


def fine_tune(params, prompts, steps):
    """SGD on WKQ alone; prints the loss now and then."""
    batch = prompts.infer(), prompts.recall()
    for last in sgd.train(params, [batch] * steps, both_steps, lr=0.5, momentum=0.9, trained=("WKQ",)):
        if last.step in (0, 3, 10, 30, steps - 1):
            print(f"    step {last.step:3}   loss {last.loss:.3f} nats")
    return last.params


def accuracy(params, prompts):
    """Share of prompts whose target has the largest logit of its slot, for the two steps."""
    return [np.mean([recall.forward(params, z).logits[start:stop].argmax() + start == target
                     for z, target in zip(tokens, targets)])
            for tokens, targets, (start, stop) in (prompts.infer(), prompts.recall())]


test = recall.sample(facts, 2, 200, rng)
print("accuracy before fine-tuning:  infer {:.3f}, recall {:.3f}".format(*accuracy(params, test)))
train = recall.sample(facts, 2, 24, rng)
tuned = fine_tune(params, train, 200)
print("accuracy after fine-tuning:   infer {:.3f}, recall {:.3f}".format(*accuracy(tuned, test)))
assert min(accuracy(tuned, test)) > 0.97

# Where it looks, and the answer to the question:
inferred = recall.forward(tuned, z).logits[2 * N:].argmax()
told = np.append(z, 2 * N + inferred)
for name, weights in (("before", params), ("after", tuned)):
    for step, tokens in (("infer", z), ("recall", told)):
        print(f"\n{step}, {name} fine-tuning: attention of the last token")
        bars(recall.forward(weights, tokens).attention, [token_names[v] for v in tokens])
answer = recall.forward(tuned, told).logits[N:2 * N].argmax()
print(f"\nJanuary April, May August, October ... {RELATIONS[inferred]}: {MONTHS[answer]}.")
assert RELATIONS[inferred] == "3 months later" and MONTHS[answer] == "January"

# To infer, one pair is enough, and which one does not matter. To recall, the query and the relation are;
# theory's best weight of the query is x* (R9), and on the prompts of the training it is met. On a prompt
# that was not among them it differs a little, since WKQ has learned to read tokens as well.
pair = recall.forward(tuned, z).attention[:4].reshape(2, 2).sum(axis=1).max()
x_star = recall.theory.recall_end_point(N, R, lam)
query = [recall.forward(tuned, tokens).attention[4] for tokens in train.recall()[0]]
print(f"winning pair: weight {pair:.3f}, theory's end point 1")
print(f"query in the recall step: weight {min(query):.3f} to {max(query):.3f} on the 24 prompts of the "
      f"training,\n    theory's end point {x_star:.3f}")
assert pair > 0.9 and np.allclose(query, x_star, rtol=0, atol=0.01)

# %% 9. Four prompts are enough
# What was learned lies in the positions, not in the months. So a few prompts should do, for tables of
# any size, on subjects and answers that fine-tuning never saw (R11, R14). Here are 300 facts:
print("\n== 9. Four prompts are enough\n")
large = recall.Facts.latin(60, 5, rng)
seen = recall.sample(large, 2, 4, rng, collision_free=True)
tuned_large = fine_tune(recall.construct(large, 2, lam), seen, 200)
test = recall.sample(large, 2, 1000, rng)
new = ~(np.isin(test.subjects, seen.subjects) | np.isin(test.answers, seen.answers)).any(axis=1)
unseen = test._replace(subjects=test.subjects[new], relation=test.relation[new], answers=test.answers[new])
print(f"on {new.sum()} prompts without any subject or answer of the four:",
      "infer {:.3f}, recall {:.3f}".format(*accuracy(tuned_large, unseen)))
assert new.sum() > 50 and min(accuracy(tuned_large, unseen)) > 0.95

# Exercise 6. Prompts whose rows of answers do not overlap are called collision-free. With the months,
# two pairs and four relations: which triples of subjects are?

# %% Answer 1
# Two months later; February.
assert facts.relation(MONTHS.index("March"), MONTHS.index("May")) == 1
assert MONTHS[facts.answer(MONTHS.index("December"), 1)] == "February"

# %% Answer 2
# The squares give lam 5/25 = 2 to each relation, each vote 2 lam/25 = 0.8 more. Both pairs vote for "3
# months later", January with May for "4", February with April for "2": 2, 2.8, 3.6, 2.8.
months = np.array([MONTHS.index(name) for name in ("January", "April", "February", "May", "October")])
answer = recall.forward(params, months + [0, N, 0, N, 0]).logits[2 * N:]
assert np.allclose(answer, [2, 2.8, 3.6, 2.8], rtol=1e-14)

# %% Answer 3
# The right answer has lam (1/2 + 1/2)^2, the others of the row lam (1/4 + 1/4) (R3): by lam/2 = 5.
answer = recall.forward(with_scores(np.array([-800.0] * 4 + [0, 0])), told).logits[N:2 * N]
assert np.allclose(answer[MONTHS.index("January")] - answer[[10, 11, 1]], lam / 2, rtol=1e-14)

# %% Answer 4
# Four times. The row [E z_i; P i] of a token holds two ones, so WKQ meets each score in four places, a
# query's token or position by a key's token or position, and all four move alike.
grads = recall.loss_and_grads(params, *infer)[1]
stepped, _ = sgd.step(params, grads, None, lr=0.1, trained=("WKQ",))
assert np.allclose(recall.forward(stepped, z).scores, 4 * -0.1 * dscores, rtol=1e-12)

# %% Answer 5
# log(1 + (R-1) e^(-lam/2)) = 0.01 gives lam = 2 log(3 / (e^0.01 - 1)) = 11.4.
strong = 2 * np.log(3 / np.expm1(0.01))
assert np.isclose(recall.theory.infer_end_loss(R, strong), 0.01, rtol=1e-12)
half = with_scores(np.array([0, 0, -800.0, -800.0, -800.0]))
half = half._replace(W2=half.W2 * strong / lam)
assert np.isclose(recall.loss(half, *infer), 0.01, rtol=1e-12) and round(strong, 1) == 11.4

# %% Answer 6
# Three rows of four answers fill the year: the subjects stand four months apart, four triples in all.
free = [s for s in combinations(range(N), 3) if len(np.unique(table[list(s)])) == 12]
assert free == [(s, s + 4, s + 8) for s in range(4)]
print("\nall six answers hold")
