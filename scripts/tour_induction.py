# %% [markdown]
# # A tour of system I: how two layers of attention continue a text from its own context
#
# A lesson of 45 minutes for readers who know matrices and probabilities. Run it cell by cell, change
# numbers and prompts, run again. Nothing here expects the numbers that stand here now. From top to bottom
# it takes about a minute:
#
#     python scripts/tour_induction.py
#
# Exercises stand where they arise, in three levels: ★ read off, ★★ derive on paper, ★★★ write code. Put
# your answer in place of `...` and run the cell: `check` says whether it is right, or gives a hint.

# %%
from pydoc_data.topics import topics        # a long English text that comes with Python

import numpy as np
from exercises import check
from lesson import BLUE, COMPILED, GREEN, ORANGE, PURPLE, bars, debug, lines, maps, plt, show, table
from refimpl import associative, gradcheck, induction, ops, sgd

SEED = 1
np.set_printoptions(precision=3, suppress=True, linewidth=90)
rng = np.random.default_rng(SEED)

# %% [markdown]
# ## 1. The task, on eight tokens
#
# A language model has habits: after t it expects h, since most texts say "the" and "that". But texts also
# have words of their own. Read this one, letter by letter, and say what comes next:
#
#     a t o m a t o t ...
#
# Habit says h. This text says o: twice already, t was followed by o. To find that out, one looks for
# earlier copies of the last letter, and copies what stood behind them. That takes two steps, and so two
# layers. The first lets each position know which letter it follows. The second looks for positions that
# follow a t.
#
# The project's task is made of such texts. Each letter follows from the one before by a table of habits,
# `pi_b`. A few letters, the *triggers*, have one fixed output in each text, drawn anew for every text.

# %%
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
maps({"habits pi_b: row = this letter, column = the next": bigram.pi_b}, bigram.chars, bigram.chars, vmin=0)

# %% [markdown]
# A sample of such a text, with t as the trigger. `occurrence` counts the copies of a trigger seen so far:
# where it is 2 or more the next letter can be known from the context. These are the *head positions*.

# %%
example = induction.sample(bigram, n=1, length=15, rng=rng, triggers=[TRIGGER])
text = [bigram.chars[v] for v in example.tokens[0]]
print("a sample:                          ", *text)
print("copies of the trigger seen so far: ", *example.occurrence[0])
print("output of t in this text:          ", bigram.chars[example.outputs[0, TRIGGER]])
by_hand = [text[:t + 1].count("t") if text[t] == "t" else 0 for t in range(15)]
assert by_hand == example.occurrence[0].tolist()

# %% [markdown]
# **Exercise 1** ★ In "a t o m a t o t", at which positions (from 0) is the next letter known from the
# context?

# %%
answer = ...            # a list of positions
check("induction", 1, answer)

# %% [markdown]
# ## 2. A memory, written and read
#
# All that such a model knows it keeps in matrices of one kind. To remember that v_i leads to u_i, add up
# outer products, W = Σ u_i v_iᵀ. To read at v_k, multiply: W v_k = Σ u_i (v_i · v_k). If the v are
# orthonormal, only u_k is left. If they are random, the other pairs leak in.

# %%
N, d = 5, 32
u, v = np.linalg.qr(rng.normal(size=(2, d, d)))[0][:, :N]       # orthonormal rows
orthonormal = associative.read(associative.write(u, v), u, v)
u, v = rng.normal(0, d ** -0.5, (2, N, d))                      # random rows of length about 1
leaking = associative.read(associative.write(u, v), u, v)
table("scores u_j W v_k, orthonormal vectors", np.round(orthonormal, 9), range(N), range(N))
table("the same, random vectors, d = 32", leaking, range(N), range(N))
maps({"orthonormal": orthonormal, "random, d = 32": leaking}, range(N), range(N),
     vmin=-1, vmax=1, cmap="RdBu")

# %% [markdown]
# How much leaks in is a short calculation (claims M1, M2: `print(associative.moments.__doc__)`). Theory
# beside 4000 drawn memories:

# %%
u, v = rng.normal(0, d ** -0.5, (2, 4000, N, d))
scores = associative.read(associative.write(u, v), u, v)
match, cross = scores[:, 0, 0], scores[:, 0, 1]
theory = associative.moments(N, d)
print("                     predicted  observed")
for name, predicted, observed in (("mean, own pair", theory.mean_match, match.mean()),
                                  ("variance, own pair", theory.var_match, match.var()),
                                  ("mean, other pair", theory.mean_cross, cross.mean()),
                                  ("variance, other pair", theory.var_cross, cross.var())):
    print(f"{name:<20} {predicted:9.3f} {observed:9.3f}")

# %% [markdown]
# And how many pairs fit? A pair is recalled if its own score is the largest. The more pairs, the more
# rivals, and the wider their spread.

# %%
sizes = np.unique(np.geomspace(2, 400, 12).astype(int))
recalled = {}
for width in (16, 32, 64):
    shares = []
    for pairs in sizes:
        u, v = rng.normal(0, width ** -0.5, (2, max(2, 400 // pairs), pairs, width))
        scores = associative.read(associative.write(u, v), u, v)
        shares.append((scores.argmax(axis=1) == np.arange(pairs)).mean())
    recalled[f"d = {width}"] = (sizes, shares, "o-")
    print(f"d = {width}: share recalled of {sizes[-1]} pairs {shares[-1]:.2f}")
lines(recalled, "pairs stored", "share recalled", "capacity of one d × d memory",
      xscale="log", ylim=(0, 1.05))

# %% [markdown]
# **Exercise 2** ★★ At d = 64, how many pairs can be stored before the standard deviation of a wrong score
# exceeds 1/4? Solve it on paper.

# %%
answer = ...            # a number of pairs
check("induction", 2, answer)

# %% [markdown]
# ## 3. Weights written by hand
#
# Now the model, `refimpl/induction/model.py`: its docstring is the whole of it, in six lines. Instead of
# training it we write its memories, in a frame where nothing leaks: the token vectors E, their images Phi
# E, the output vectors U and the position vectors pos are all orthonormal.
#
# | memory | who asks | looks for | strength |
# | --- | --- | --- | --- |
# | WK1 | every token | whatever stands one position back | b1 |
# | WK2 | the trigger t | a position whose previous token is t | b2 |
# | WO | a token that was found | leads to the same token as output | bo |
# | WF | a token | leads to its habit, log pi_b | 1 |
#
# Four questions that one may ask here.
#
# - **What is a query?** The position that asks. Here it asks with its own vector, x_t, and WK says which
#   keys it meets: the score is x_t · WK x_s. No separate query matrix is needed.
# - **Why a residual stream?** x1 = x0 + Phi h: layer 1 adds what it fetched and leaves the token where it
#   was. Both can be read, since E and Phi E are orthogonal: "I am an o" and "I follow a t".
# - **Why are Phi and WV fixed and random?** They need only carry vectors to a place where nothing else
#   stands. In high dimension a random matrix does that. What must be learned is who looks where, and what
#   it leads to.
# - **Why does WF read after layer 2?** The habit is read from the token's own vector, which the stream
#   still holds. In a trained model WF also reads what layer 2 added: a second way for the context (claim I9
#   measures it).

# %%
b1, b2, bo = 4.0, 6.0, 6.0
frame = induction.orthonormal_frame(V=8, L=40, rng=rng)
params = induction.construct(frame, bigram, [TRIGGER], b1, b2, bo)
for name, array in params._asdict().items():
    print(f"    {name:<4} {array.shape}")
E, U, pos, Phi, WV, WK1, WK2, WO, WF = params
read_WK1, read_WK2 = E @ WK1 @ pos[:8].T, E @ WK2 @ (E @ Phi.T).T
table("WK2 read between tokens (rows) and previous tokens (columns)", np.round(read_WK2, 9), bigram.chars,
      bigram.chars)
maps({"WK1: token (row), positions back": read_WK1}, bigram.chars, range(8))
maps({"WK2: token (row), previous token": read_WK2}, bigram.chars, bigram.chars)

# %% [markdown]
# **Exercise 3** ★★★ Write WK2 yourself: a function of E, Phi, the triggers' ids and b2.

# %%
def write_WK2(E, Phi, triggers, b2):
    ...


check("induction", 3, write_WK2)

# %% [markdown]
# ## 4. The forward pass, step by step
#
# Vectors of 64 numbers say little to the eye. So we read each of them where it can be understood: against E
# (which token is here?), against Phi E (which token was fetched by layer 1?) and against U.

# %%
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
print("\nA2 of the last t: it looks at the letters that follow a t")
bars(attention2[-1], PROMPT)
maps({"A1: who came before?": attention1, "A2: what followed t?": attention2}, PROMPT, PROMPT, vmin=0, vmax=1)
trace = induction.forward(params, z)        # the library does the same, and keeps every line
for name, mine in (("attention1", attention1), ("x1", x1), ("attention2", attention2), ("logits", logits)):
    assert gradcheck.relative_error(mine, getattr(trace, name)) < 1e-12, name

# %% [markdown]
# **Exercise 4** ★★ How large must b1 be for position 39 to give its predecessor 99 % of its attention?

# %%
answer = ...            # b1
check("induction", 4, answer)

# %% [markdown]
# ## 5. The closed form beside it
#
# In this frame one can do the sums without a model (claim I3: `python -m refimpl explain I3`). Layer 1
# gives the key one back the weight e^b1/(e^b1 + t). Position s then carries m_s, the share of t among what
# it has looked at; layer 2 is the softmax of b2 m_s; each letter gets bo times its share.

# %%
assert gradcheck.relative_error(induction.theory.previous_token_attention(T, b1), trace.attention1) < 1e-12
predicted = induction.theory.logits(z, np.log(bigram.pi_b), [TRIGGER], b1, b2, bo)
habit, share = np.log(bigram.pi_b[TRIGGER]), attention2[-1] @ np.eye(8)[z]
order = np.argsort(-predicted[-1])
print("letter   habit  + bo x share =  predicted     model")
for u in order:
    print(f"   {bigram.chars[u]}    {habit[u]:6.2f}  + {bo:.0f} x {share[u]:5.3f} = "
          f"{predicted[-1, u]:10.5f} {trace.logits[-1, u]:10.5f}")
print(f"largest gap over all positions and letters: {abs(predicted - trace.logits).max():.0e}")
assert gradcheck.relative_error(predicted, trace.logits) < 1e-12
figure, axis = plt.subplots(figsize=(7, 3.6))
names = [bigram.chars[u] for u in order]
axis.bar(names, habit[order], color=PURPLE, label="habit, log pi_b")
axis.bar(names, bo * share[order], bottom=habit[order], color=GREEN, label="context, bo x share")
axis.plot(names, trace.logits[-1, order], "k_", markersize=26, label="the model")
axis.set(ylabel="logit [nats]", title="theory adds up to the model")
axis.legend(frameon=False)
show(figure)

# %% [markdown]
# ## 6. Who wins, habit or context?
#
# The letter o beats h if bo (share of o) exceeds Δ = log pi_b[t, h] / pi_b[t, o]. In a longer text the
# share of o shrinks, and habit hijacks the context. With a sharp layer 1 (b1 large) the boundary is a line
# (claim I5): k copies of "to" among T letters are enough if k > k* = T / (1 + e^b2 (bo/Δ − 1)).

# %%
gap = np.log(bigram.pi_b[TRIGGER, HABIT] / bigram.pi_b[TRIGGER, CONTEXT])
T, b2, bo = 40, 2.0, 4.0
sharp = induction.construct(frame, bigram, [TRIGGER], 30.0, b2, bo)
k_star = float(induction.theory.hijack(1, T, gap, b2, bo).critical_repetitions)
print(f"gap = {gap:.3f}; at T = {T} context should win from k* = {k_star:.2f} repetitions on\n")


def duel(params, k, T):
    """The prompt with k copies of "to", and by how much its last logits prefer o to h."""
    prompt = ("am" * T)[:T - 1 - 2 * k] + "to" * k + "t"
    logits = induction.forward(params, read(prompt)).logits[-1]
    return prompt, logits[CONTEXT] - logits[HABIT]


margins = []
print(" k   prompt                                     o beats h by   predicted  observed")
for k in range(1, 9):
    prompt, margin = duel(sharp, k, T)
    margins.append(margin)
    print(f"{k:2}   {prompt}  {margin:12.3f}   {'context' if k > k_star else 'habit':<9}"
          f"  {'context' if margin > 0 else 'habit'}")
    assert (margin > 0) == (k > k_star)
lengths = np.arange(20, 41)
boundary = induction.theory.hijack(1, lengths, gap, b2, bo).critical_repetitions
figure, axis = plt.subplots(figsize=(7, 4.2))
axis.plot(lengths, np.minimum(boundary, 9), "k-", label="k* (I5)")
for k in range(1, 9):
    for length in range(20, 41, 4):
        won = duel(sharp, k, length)[1] > 0
        axis.plot(length, k, "o", color=GREEN if won else PURPLE, fillstyle="full" if won else "none")
axis.set(xlabel="length T", ylabel="repetitions k", title="filled: context wins; open: habit hijacks")
axis.legend(frameon=False)
show(figure)

# %% [markdown]
# **Exercise 5** ★★ How strong must bo be for a single "to" among 40 letters to win, with b2 = 2?
#
# **Exercise 6** ★★★ The formula of I5 assumes that t is always followed by o. Find a prompt of at most 40
# letters, ending in t, without h and not beginning with t, on which k copies of "to" should win by this
# formula and the model `sharp` nevertheless prefers h.

# %%
answer = ...            # bo
check("induction", 5, answer, gap=gap)
answer = ...            # a string of letters
check("induction", 6, answer, read=read, model=sharp, gap=gap, b2=b2, bo=bo)

# %% [markdown]
# ## 7. One derivative by hand
#
# Training needs derivatives. Take the smallest part, the loss on three logits if the second letter is
# right. Write the forward pass as numbered steps, then undo them from the last to the first: each line
# turns "how the loss depends on my output" (written d + name) into "how it depends on my input".

# %%
s, target = np.array([2.0, 1.0, 0.0]), 1
p = np.exp(s - s.max()) / np.exp(s - s.max()).sum()     # 1
loss = -np.log(p[target])                               # 2
dp = -np.eye(3)[target] / p[target]                     # 2
ds = p * (dp - dp @ p)                                  # 1, since dp_i/ds_j = p_i (1[i = j] - p_j)
print("logits s       ", s, " target", target)
print("1   p          ", p)
print("2   loss        ", f"{loss:.3f}")
print("2   dp         ", dp)
print("1   ds         ", ds, " which is p minus one at the target")
assert np.allclose(ds, p - np.eye(3)[target], rtol=0, atol=1e-14)

# %% [markdown]
# Is it right? Difference quotients lose digits: the smaller the step, the more. The complex step does not:
# for a smooth f, f(s + ih) = f(s) + ih f'(s) + …, so f' is the imaginary part over h, and nothing is
# subtracted. h can be 1e-30.

# %%
def cross_entropy(s):
    """The library's kernel: it takes complex numbers too."""
    return ops.cross_entropy_forward(s[None], np.array([target]), 0, len(s))[0]


steps = np.geomspace(1e-1, 1e-13, 25)
first = np.eye(len(s))[0]
quotients = [abs((cross_entropy(s + h * first) - cross_entropy(s)) / h - ds[0]) for h in steps]
complex_step = abs(cross_entropy(s + 1e-30j * first).imag / 1e-30 - ds[0])
print(f"best difference quotient: error {min(quotients):.0e}; complex step: {complex_step:.0e}")
lines({"difference quotient": (steps, quotients, "o-"),
       "complex step, h = 1e-30": (steps[[0, -1]], 2 * [max(complex_step, 1e-17)], "k--")},
      "step h", "error of the derivative", "subtraction loses digits", xscale="log", yscale="log")
assert gradcheck.relative_error(gradcheck.complex_step(cross_entropy, s), ds) < 1e-13

# %% [markdown]
# The whole model is undone in the same way, 13 steps (`backward_pass` in model.py). Its nine gradients
# against the complex step, at random weights:

# %%
small = induction.init(4, 5, 6, rng)
small = small._make(field + rng.normal(0, 0.5, field.shape) for field in small)
tokens, mask = rng.integers(0, 4, (2, 7)), np.ones((2, 6), bool)
_, grads = induction.loss_and_grads(small, tokens, mask)
exact = gradcheck.complex_step(lambda params: induction.loss(params, tokens, mask), small)
print("relative error of the nine gradients:")
for name, mine, right in zip(small._fields, grads, exact):
    print(f"    {name:<4} {gradcheck.relative_error(mine, right):.0e}")
assert gradcheck.relative_error(grads, exact) < 1e-11

# %% [markdown]
# **Exercise 7** ★★★ Write the backward pass of the softmax: from p and dp to ds. The complex step checks
# it.

# %%
def softmax_backward(p, dp):
    ...


check("induction", 7, softmax_backward)

# %% [markdown]
# ## 8. Inside a kernel, with a debugger
#
# The kernels in `refimpl/ops.py` are compiled, and a debugger does not stop in compiled code. With
# `NUMBA_DISABLE_JIT=1` the same lines run as plain Python. In a terminal:
#
#     NUMBA_DISABLE_JIT=1 python -m pdb scripts/tour_induction.py
#     (Pdb) from refimpl import ops
#     (Pdb) tbreak ops.softmax_forward
#     (Pdb) continue
#
# The program stops once, at the first line of the softmax. `next` goes on by one line, `p p` prints the
# weights as they fill up, `where` says who called, `up` leads there. Such a dialogue, recorded now:

# %%
debug("ops.softmax_forward(np.array([2.0, 1.0, 0.0]))",
      ["step", "args", "next", "next", "next", "p largest", "return", "p total, p", "continue"])

# %% [markdown]
# ## 9. Training: the same memories, found by SGD
#
# So far we wrote the memories. Do they appear if nobody writes them? Real text now, 65 characters; the five
# most frequent ones are triggers with random outputs. E, U, pos, Phi, WV are random and stay. WK1, WK2 and
# WO start at zero. The loss counts head positions only.

# %%
V, d, T, K = 65, 128, 64, 5
STEPS = 100 if COMPILED else 2
print("compiling the fast path: about 20 seconds the first time" if COMPILED else
      "plain Python: two steps of training in place of a hundred")
english = induction.Bigram.from_text("\n".join(topics.values()), V)
code = {letter: v for v, letter in enumerate(english.chars)}
start = induction.init(V, d, T, rng)
held_out = induction.sample(english, 64 if COMPILED else 1, T, rng, triggers=K)


def accuracy(params):
    """Share of head positions where the right letter has the largest logit, on text not trained on."""
    right = [induction.tables.logits(params, z[:-1]).argmax(axis=1) == z[1:] for z in held_out.tokens]
    return np.array(right)[held_out.occurrence >= 2].mean()


def batches():
    """New text for every step."""
    for _ in range(STEPS):
        batch = induction.sample(english, 64 if COMPILED else 2, T, rng, triggers=K)
        yield batch.tokens, batch.occurrence >= 2


losses, accuracies = [], [accuracy(start)]
print(f"step   0                        accuracy {accuracies[0]:.2f}")
for last in sgd.train(start, batches(), induction.tables.loss_and_grads, lr=10, momentum=0.9,
                      weight_decay=1e-4, trained=("WK1", "WK2", "WO")):
    losses.append(last.loss)
    if (last.step + 1) % 10 == 0:
        accuracies.append(accuracy(last.params))
        print(f"step {last.step + 1:3}   loss {last.loss:5.2f} nats   accuracy {accuracies[-1]:.2f}")
trained = last.params
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8))
axes[0].plot(losses, color=BLUE)
axes[0].set(xlabel="step", ylabel="loss [nats]", title="loss on head positions")
axes[1].plot(10 * np.arange(len(accuracies)), accuracies, "o-", color=ORANGE)
axes[1].set(xlabel="step", ylabel="accuracy", title="on new text", ylim=(0, 1.05))
show(figure)

# %% [markdown]
# A text in which e is always followed by k. Where does the last e look, before and after?

# %%
prompt = "bekanekilosekume"
z = np.array([code[letter] for letter in prompt])
before, after = (induction.forward(weights, z) for weights in (start, trained))
for name, seen in (("before", before), ("after", after)):
    print(f"\n{name}: A2 of the last e in {prompt!r}")
    bars(seen.attention2[-1], prompt)
print("next, in the model's opinion:", english.chars[after.logits[-1].argmax()])
maps({"A1, trained": after.attention1, "A2, trained": after.attention2}, prompt, prompt, vmin=0, vmax=1)

# %% [markdown]
# And the memories: read each as in section 2. Does WO lead each token to itself? Does WK2 lead each trigger
# to what follows it? Does WK1 prefer one position back, for every token?

# %%
E, U, pos, Phi, WV, WK1, WK2, WO, WF = trained
recalled = {"WK1": (E @ WK1 @ pos.T).argmax(axis=1) == 1,
            "WK2": (E[:K] @ WK2 @ (E @ Phi.T).T).argmax(axis=1) == np.arange(K),
            "WO": (U @ WO @ (E @ WV.T).T).argmax(axis=1) == np.arange(V)}
print("share of pairs that the trained memories recall:",
      ", ".join(f"{name} {right.mean():.2f}" for name, right in recalled.items()))
letters = [c.replace(" ", "␣").replace("\n", "↵") for c in english.chars[:12]]
maps({"trained WK2: trigger (row), previous token": (E[:K] @ WK2 @ (E @ Phi.T).T)[:, :12]},
     letters[:K], letters)

# %% [markdown]
# ## 10. A claim of your own
#
# This project's instruments take anyone's derivation. A claim predicts, observes, and names one assumption
# whose breaking must show.
#
# **Exercise 8** ★★★ Write a claim about the forward pass with `refimpl.claims.claim`. An example: every row
# of `attention2` sums to one; its control leaves a key out. `check` audits it: all instances must agree,
# and the control must fail in all of its own. The README has the pattern.

# %%
my_claim = ...
check("induction", 8, my_claim)
