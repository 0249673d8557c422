"""A tour of system I: how two layers of attention continue a text from its own context.

A lesson of 30 to 45 minutes for readers who know matrices and probabilities. Run it cell by cell, in
order (the lines `# %%` cut it into cells for editors that know them), change numbers, run again; or from
top to bottom in half a minute:

    python scripts/tour_induction.py

Exercises stand where they arise. Their answers are in the cells at the end, each with an assert.
"""

# %% Set up
import os
import subprocess
import sys
from pydoc_data.topics import topics        # a long English text that comes with Python

import numpy as np

from refimpl import associative, gradcheck, induction, ops, sgd

np.set_printoptions(precision=3, suppress=True, linewidth=90)
rng = np.random.default_rng(1)


def show(title, matrix, rows, columns):
    """Print a small matrix with names; exact zeros as dots."""
    print(f"{title}\n      " + "".join(f"{name:>6}" for name in columns))
    for name, row in zip(rows, matrix):
        print(f"{name:>5} " + "".join("     ." if x == 0 else f"{x:6.2f}" for x in row))


def bars(weights, names):
    """Print weights between 0 and 1 as bars, one line each."""
    for name, weight in zip(names, weights):
        print(f"    {name}  {weight:5.3f}  {'#' * round(40 * weight)}".rstrip())


# %% 1. The task, on eight tokens
# A language model has habits: after t it expects h, since most texts say "the" and "that". But texts
# also have words of their own. Read this one, letter by letter, and say what comes next:
#
#     a t o m a t o t ...
#
# Habit says h. This text says o: twice already, t was followed by o. To find that out, one looks for
# earlier copies of the last letter, and copies what stood behind them. Two steps, two layers: the
# first lets each position know which letter it follows, the second looks for positions that follow a t.
#
# The project's task is made of such texts. Each letter follows from the one before by a table of
# habits, pi_b; but a few letters, the triggers, have one fixed output per text, drawn anew for each.
print("\n== 1. The task, on eight tokens\n")
LETTERS = "then the man on the moth met the ten that he had seen at home so the host has to hem"
bigram = induction.Bigram.from_text(LETTERS.replace(" ", ""), V=8, prior=0.1)
token = {letter: v for v, letter in enumerate(bigram.chars)}


def read(text):
    """Letters to token ids."""
    return np.array([token[letter] for letter in text])


PROMPT = "atomatot"
TRIGGER, HABIT, CONTEXT = read("tho")
followers = [after for before, after in zip(PROMPT, PROMPT[1:]) if before == "t"]
print("the prompt:                          ", *PROMPT, "...")
print("what followed t in it:               ", *followers)
print("what follows t most often elsewhere: ", bigram.chars[bigram.pi_b[TRIGGER].argmax()])
assert set(followers) == {"o"} and bigram.pi_b[TRIGGER].argmax() == HABIT
show("\nhabits pi_b: row = this letter, column = the next", bigram.pi_b, bigram.chars, bigram.chars)
example = induction.sample(bigram, n=1, length=15, rng=rng, triggers=[TRIGGER])
text = [bigram.chars[v] for v in example.tokens[0]]
print("\na sample, with t as the trigger:   ", *text)
print("copies of the trigger seen so far: ", *example.occurrence[0])
print("output of t in this text:          ", bigram.chars[example.outputs[0, TRIGGER]])

# Where `occurrence` is 2 or more the next letter can be known from the context. Check the row by hand:
by_hand = [text[:t + 1].count("t") if text[t] == "t" else 0 for t in range(15)]
assert by_hand == example.occurrence[0].tolist()

# Exercise 1. In "a t o m a t o t", at which positions (from 0) is the next letter known from context?

# %% 2. A memory, written and read
# All that such a model knows it keeps in matrices of one kind. To remember that v_i leads to u_i, add
# up outer products, W = sum_i u_i v_i^T. To read at v_k, multiply: W v_k = sum_i u_i (v_i . v_k). If the
# v are orthonormal, only u_k is left. If they are random, the other pairs leak in.
print("\n== 2. A memory, written and read\n")
N, d = 5, 32
u, v = np.linalg.qr(rng.normal(size=(2, d, d)))[0][:, :N]       # orthonormal rows
show("scores u_j W v_k, orthonormal vectors", np.round(associative.read(associative.write(u, v), u, v), 9),
     range(N), range(N))
u, v = rng.normal(0, d ** -0.5, (2, N, d))                      # random rows of length about 1
show("the same, random vectors, d = 32", associative.read(associative.write(u, v), u, v), range(N), range(N))

# How much leaks in is a short calculation (claims M1, M2: `print(associative.moments.__doc__)`). Theory
# and 4000 drawn memories:
u, v = rng.normal(0, d ** -0.5, (2, 4000, N, d))
scores = associative.read(associative.write(u, v), u, v)
match, cross = scores[:, 0, 0], scores[:, 0, 1]
theory = associative.moments(N, d)
print("\n                     predicted  observed")
for name, predicted, observed in (("mean, own pair", theory.mean_match, match.mean()),
                                  ("variance, own pair", theory.var_match, match.var()),
                                  ("mean, other pair", theory.mean_cross, cross.mean()),
                                  ("variance, other pair", theory.var_cross, cross.var())):
    print(f"{name:<20} {predicted:9.3f} {observed:9.3f}")
assert abs(match.mean() - 1) < 5 * (theory.var_match / 4000) ** 0.5        # five standard errors
assert abs(cross.mean()) < 5 * (theory.var_cross / 4000) ** 0.5

# Exercise 2. At d = 64, how many pairs can be stored before a wrong score varies by more than 1/4 (its
# standard deviation)? Solve it on paper.

# %% 3. Weights written by hand
# Now the model, `refimpl/induction/model.py`: its docstring is the whole of it, in six lines. Instead
# of training it we write its memories, in a frame where nothing leaks: the token vectors E, their images
# Phi E, the output vectors U and the position vectors pos are all orthonormal.
#
#     WK1  every token        looks for   whatever stands one position back       strength b1
#     WK2  the trigger t      looks for   a position whose previous token is t    strength b2
#     WO   a token it found   leads to    the same token as output                strength bo
#     WF   a token            leads to    its habit, log pi_b                     strength 1
print("\n== 3. Weights written by hand\n")
b1, b2, bo = 4.0, 6.0, 6.0
frame = induction.orthonormal_frame(V=8, L=40, rng=rng)
params = induction.construct(frame, bigram, [TRIGGER], b1, b2, bo)
print("the model's nine arrays:")
for name, array in params._asdict().items():
    print(f"    {name:<4} {array.shape}")
E, U, pos, Phi, WV, WK1, WK2, WO, WF = params
show("\nWK1 read between every token and the first positions back: E WK1 pos^T",
     np.round(E @ WK1 @ pos[:5].T, 9), bigram.chars, range(5))
show("\nWK2 read between tokens and previous tokens: E WK2 (E Phi^T)^T",
     np.round(E @ WK2 @ (E @ Phi.T).T, 9), bigram.chars, bigram.chars)

# %% 4. The forward pass, step by step
# Vectors of 64 numbers say little to the eye. So we read each of them where it can be understood: against
# E (which token is here?), against E Phi^T (which token was fetched by layer 1?) and against U.
print("\n== 4. The forward pass, step by step\n")
z = read(PROMPT)
T = len(z)
x0 = E[z]
print(f"x0 = E[z]                        {x0.shape}   each row a token")
scores1 = ops.relative_scores_forward(x0 @ WK1 @ x0.T, x0 @ WK1 @ pos.T)
print(f"S1 = x0 WK1 (x0 + pos)^T         {scores1.shape}     row t, key s, which stands t - s back")
attention1 = ops.causal_softmax_forward(scores1)
print(f"A1 = softmax(S1)                 {attention1.shape}     each row sums to 1, nothing later than t")
x1 = x0 + attention1 @ x0 @ Phi.T
print(f"x1 = x0 + Phi A1 x0              {x1.shape}   the token, and beside it the one before")
attention2 = ops.causal_softmax_forward(x1 @ WK2 @ x1.T)
print(f"A2 = softmax(x1 WK2 x1^T)        {attention2.shape}     whose previous token is mine?")
x2 = x1 + attention2 @ x1 @ WV.T @ WO.T
logits = (x2 + x2 @ WF.T) @ U.T
print(f"x2 = x1 + WO WV A2 x1            {x2.shape}   and what layer 2 found")
print(f"logits = U (x2 + WF x2)          {logits.shape}    a score for each letter")
show("\nA1: each position (row) looks one back", attention1, PROMPT, PROMPT)
show("\nx1 read against E Phi^T: which token does each position follow?",
     np.round(x1 @ (E @ Phi.T).T, 9), PROMPT, bigram.chars)
print("\nA2 of the last t: it looks at the letters that follow a t")
bars(attention2[-1], PROMPT)

# The library does the same; its trace keeps every line of it.
trace = induction.forward(params, z)
for name, mine in (("attention1", attention1), ("x1", x1), ("attention2", attention2), ("logits", logits)):
    assert gradcheck.relative_error(mine, getattr(trace, name)) < 1e-12, name

# Exercise 3. How large must b1 be for position 39 to give its predecessor 99 % of its attention?

# %% 5. The closed form beside it
# In this frame one can do the sums without a model (claim I3: `python -m refimpl explain I3`). Layer 1
# gives the key one back the weight e^b1/(e^b1 + t). Position s then carries m_s, the share of t among
# what it has looked at; layer 2 is the softmax of b2 m_s; each letter gets bo times its share.
print("\n== 5. The closed form beside it\n")
assert gradcheck.relative_error(induction.theory.previous_token_attention(T, b1), trace.attention1) < 1e-12
predicted = induction.theory.logits(z, np.log(bigram.pi_b), [TRIGGER], b1, b2, bo)
habit, share = np.log(bigram.pi_b[TRIGGER]), attention2[-1] @ np.eye(8)[z]
print("letter   habit  + bo x share =  predicted     model")
for u in np.argsort(-predicted[-1]):
    print(f"   {bigram.chars[u]}    {habit[u]:6.2f}  + {bo:.0f} x {share[u]:5.3f} = "
          f"{predicted[-1, u]:10.5f} {trace.logits[-1, u]:10.5f}")
print(f"largest gap over all positions and letters: {abs(predicted - trace.logits).max():.0e}")
assert predicted[-1].argmax() == CONTEXT and gradcheck.relative_error(predicted, trace.logits) < 1e-12

# %% 6. Who wins, habit or context? Predicted, then observed
# The letter o beats h if bo (share of o) exceeds gap = log pi_b[t, h] / pi_b[t, o]. In a longer text the
# share of o shrinks, and habit hijacks the context. With a sharp layer 1 (b1 large) the boundary is a
# line (claim I5): k copies of "to" among T letters are enough if k > k* = T / (1 + e^b2 (bo/gap - 1)).
print("\n== 6. Who wins, habit or context?\n")
gap = np.log(bigram.pi_b[TRIGGER, HABIT] / bigram.pi_b[TRIGGER, CONTEXT])
T, b2, bo = 40, 2.0, 4.0
sharp = induction.construct(frame, bigram, [TRIGGER], 30.0, b2, bo)
k_star = induction.theory.hijack(1, T, gap, b2, bo).critical_repetitions
print(f"gap = {gap:.3f}; at T = {T} context should win from k* = {k_star:.2f} repetitions on\n")


def duel(params, k, T):
    """The prompt with k copies of "to", and by how much its last logits prefer o to h."""
    prompt = ("am" * T)[:T - 1 - 2 * k] + "to" * k + "t"
    logits = induction.forward(params, read(prompt)).logits[-1]
    return prompt, logits[CONTEXT] - logits[HABIT]


print(" k   prompt                                     o beats h by   predicted  observed")
for k in range(1, 9):
    prompt, margin = duel(sharp, k, T)
    predicted = bool(induction.theory.hijack(k, T, gap, b2, bo).context_wins)
    print(f"{k:2}   {prompt}  {margin:12.3f}   {'context' if predicted else 'habit':<9}"
          f"  {'context' if margin > 0 else 'habit'}")
    assert predicted == (margin > 0) == (k > k_star)

# Exercise 4. How strong must bo be for a single "to" among 40 letters to win, b2 = 2 as here?

# %% 7. One derivative by hand
# Training needs derivatives. Take the smallest part, the loss on three logits if the second letter is
# right. Write the forward pass as numbered steps, then undo them from the last to the first: each line
# turns "how the loss depends on my output" (written d + name) into "how it depends on my input".
print("\n== 7. One derivative by hand\n")
s, target = np.array([2.0, 1.0, 0.0]), 1
p = np.exp(s - s.max()) / np.exp(s - s.max()).sum()     # 1
loss = -np.log(p[target])                               # 2
dp = np.array([0.0, -1 / p[target], 0.0])               # 2
ds = p * (dp - dp @ p)                                  # 1, since dp_i/ds_j = p_i (1[i = j] - p_j)
print("logits s       ", s, " target", target)
print("1   p          ", p)
print("2   loss        ", f"{loss:.3f}")
print("2   dp         ", dp)
print("1   ds         ", ds, " which is p - [0 1 0]")
assert np.allclose(ds, p - [0, 1, 0], rtol=0, atol=1e-15)

# Is it right? Difference quotients lose digits: the smaller the step, the more. The complex step does
# not: for a smooth f, f(s + ih) = f(s) + ih f'(s) + ..., so f' is the imaginary part over h, and nothing
# is subtracted. h can be 1e-30.


def cross_entropy(s):
    """The library's kernel: it takes complex numbers too."""
    return ops.cross_entropy_forward(s[None], np.array([target]), 0, 3)[0]


print("\n                     h    error of the derivative by s_0")
for h in (1e-2, 1e-5, 1e-8, 1e-11):
    quotient = (cross_entropy(s + [h, 0, 0]) - cross_entropy(s)) / h
    print(f"difference     {h:.0e}    {abs(quotient - ds[0]):.0e}")
complex_step = cross_entropy(s + [1e-30j, 0, 0]).imag / 1e-30
print(f"complex step   1e-30    {abs(complex_step - ds[0]):.0e}")
assert gradcheck.relative_error(gradcheck.complex_step(cross_entropy, s), ds) < 1e-14

# The whole model is undone in the same way, 13 steps (`backward_pass` in model.py). Its nine gradients
# against the complex step, at random weights:
small = induction.init(4, 5, 6, rng)
small = small._make(field + rng.normal(0, 0.5, field.shape) for field in small)
tokens, mask = rng.integers(0, 4, (2, 7)), np.ones((2, 6), bool)
_, grads = induction.loss_and_grads(small, tokens, mask)
exact = gradcheck.complex_step(lambda params: induction.loss(params, tokens, mask), small)
print("\nrelative error of the nine gradients:")
for name, mine, right in zip(small._fields, grads, exact):
    print(f"    {name:<4} {gradcheck.relative_error(mine, right):.0e}")
assert gradcheck.relative_error(grads, exact) < 1e-12

# Exercise 5. Backpropagate dp = [1, 1, 1] through the softmax, at any s. Why must that come out as it does?

# %% 8. Inside a kernel, with a debugger
# The kernels in `refimpl/ops.py` are compiled, and a debugger does not stop in compiled code. With
# NUMBA_DISABLE_JIT=1 the same lines run as plain Python. In a terminal:
#
#     NUMBA_DISABLE_JIT=1 python -m pdb scripts/tour_induction.py
#     (Pdb) from refimpl import ops
#     (Pdb) break ops.softmax_forward
#     (Pdb) continue
#
# One sees the program stop at the first line of the softmax; `next` goes on by one line, `p p` prints
# the weights as they fill up, `where` who called; `up` leads to the row of the causal softmax, and once
# more to the line of section 4. An editor's debugger does the same, if the variable is set in its launch
# settings. Such a dialogue, recorded now:
print("\n== 8. Inside a kernel, with a debugger\n")
KEYS = ["step", "args", "next", "next", "next", "p largest", "return", "p total, p", "continue"]
dialogue = subprocess.run(
    [sys.executable, "-c", "import pdb, numpy as np; from refimpl import ops; "
     "pdb.run('ops.softmax_forward(np.array([2.0, 1.0, 0.0]))', globals())"],
    env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, input="\n".join(KEYS), text=True,
    capture_output=True, check=True)
for key, answer in zip(KEYS, dialogue.stdout.split("(Pdb) ")[1:]):
    print(f"(Pdb) {key}")
    print("\n".join(line.replace(os.path.dirname(ops.__file__), "refimpl") for line in answer.splitlines()))
assert "softmax_forward" in dialogue.stdout and "0.665" in dialogue.stdout

# %% 9. Training: the same memories, found by SGD
# So far we wrote the memories. Do they appear if nobody writes them? Real text now, 65 characters, the
# five most frequent ones are triggers with random outputs. E, U, pos, Phi, WV are random and stay; WK1,
# WK2 and WO start at zero. The loss counts positions where the context knows the answer.
print("\n== 9. Training: the same memories, found by SGD\n")
V, d, T, K, STEPS = 65, 128, 64, 5, 100
english = induction.Bigram.from_text("\n".join(topics.values()), V)
code = {letter: v for v, letter in enumerate(english.chars)}
start = induction.init(V, d, T, rng)
held_out = induction.sample(english, 64, T, rng, triggers=K)


def accuracy(params):
    """Share of the positions with a known answer where it is the largest logit, on text not trained on."""
    right = [induction.tables.logits(params, z[:-1]).argmax(axis=1) == z[1:] for z in held_out.tokens]
    return np.array(right)[held_out.occurrence >= 2].mean()


def batches():
    """New text for every step."""
    for _ in range(STEPS):
        batch = induction.sample(english, 64, T, rng, triggers=K)
        yield batch.tokens, batch.occurrence >= 2


print(f"step   0                        accuracy {accuracy(start):.2f}")
for last in sgd.train(start, batches(), induction.tables.loss_and_grads, lr=10, momentum=0.9,
                      weight_decay=1e-4, trained=("WK1", "WK2", "WO")):
    if (last.step + 1) % 20 == 0:
        print(f"step {last.step + 1:3}   loss {last.loss:5.2f} nats   accuracy {accuracy(last.params):.2f}")
trained = last.params
assert accuracy(start) < 0.2 and accuracy(trained) > 0.8

# A text in which e is always followed by k. Where does the last e look, before and after?
prompt = "bekanekilosekume"
z = np.array([code[letter] for letter in prompt])
for name, weights in (("before", start), ("after", trained)):
    trace = induction.forward(weights, z)
    print(f"\n{name}: A2 of the last e in {prompt!r}")
    bars(trace.attention2[-1], prompt)
print("next, in the model's opinion:", english.chars[trace.logits[-1].argmax()])
assert trace.logits[-1].argmax() == code["k"]

# And the memories: read each as in section 2. Does WO lead each token to itself? Does WK2 lead each
# trigger to what follows it? Does WK1 prefer one position back, for every token?
E, U, pos, Phi, WV, WK1, WK2, WO, WF = trained
recalled = {"WK1": (E @ WK1 @ pos.T).argmax(axis=1) == 1,
            "WK2": (E[:K] @ WK2 @ (E @ Phi.T).T).argmax(axis=1) == np.arange(K),
            "WO": (U @ WO @ (E @ WV.T).T).argmax(axis=1) == np.arange(V)}
print("\nshare of pairs that the trained memories recall:",
      ", ".join(f"{name} {right.mean():.2f}" for name, right in recalled.items()))
assert all(right.mean() > 0.6 for right in recalled.values())

# Exercise 6. A model with absolute positions whose memory was written for 16 positions reads 40 letters.
# What does position 30 give its predecessor?

# %% Answer 1
# Positions 5 and 7: the second and the third t. (At position 1 nothing has been said about t yet.)
seen = ["atomatot"[:t + 1].count("t") if letter == "t" else 0 for t, letter in enumerate("atomatot")]
assert [t for t in range(8) if seen[t] >= 2] == [5, 7]

# %% Answer 2
# 2 (1 + 2/d)/d + (N - 2)/d^2 <= 1/16 gives N <= 2 + d^2/16 - 2 (d + 2): 126 pairs.
N = 2 + 64 ** 2 // 16 - 2 * (64 + 2)
assert N == 126 and associative.moments(N, 64).var_cross <= 1 / 16 < associative.moments(N + 1, 64).var_cross

# %% Answer 3
# e^b1 / (e^b1 + 39) = 0.99, so b1 = log(99 x 39) = 8.26.
answer = induction.construct(frame, bigram, [TRIGGER], np.log(99 * 39), 1, 1)
assert abs(induction.forward(answer, rng.integers(0, 8, 40)).attention1[39, 38] - 0.99) < 1e-12

# %% Answer 4
# k = 1 > T / (1 + e^b2 (bo/gap - 1)), so bo > gap (1 + (T - 1) e^-b2). Just below it loses:
enough = gap * (1 + 39 * np.exp(-2))
for factor, wins in ((0.99, False), (1.01, True)):
    assert (duel(induction.construct(frame, bigram, [TRIGGER], 30, 2, factor * enough), 1, 40)[1] > 0) == wins

# %% Answer 5
# Zero: the weights always sum to 1, so a loss that is their sum does not depend on s.
assert abs(ops.softmax_backward(p, np.ones(3))).max() < 1e-15

# %% Answer 6
# 1/31, like every other key: nothing is stored about positions beyond 15 (claim I2). With relative
# positions the same memory serves at every length.
absolute = induction.orthonormal_frame(8, 40, rng, encoding="absolute")
absolute = induction.construct(absolute, bigram, [TRIGGER], 4, 1, 1, encoding="absolute", train_length=16)
attention = induction.forward(absolute, rng.integers(0, 8, 40), encoding="absolute").attention1
assert abs(attention[30, 29] - 1 / 31) < 1e-12 and attention[15, 14] > 0.7
print("\nall six answers hold")
