"""Test vectors: the arrays that a port of either model must reproduce, and the check that it does.

    python -m refimpl vectors write DIR             write the vectors
    python -m refimpl vectors check DIR THEIRS      compare a port's arrays with them
    python -m refimpl vectors check DIR THEIRS --only 'induction/*absolute*'
    python -m refimpl vectors write DIR --model induction --encoding absolute --V 50 --d 64 --T 128 --B 4
        --trained WK1,WK2,WO --seed 7               (one line: one case, of your own sizes)

Format, version 1
-----------------
Each case is one folder, DIR/v1/<model>/<case>/, with `arrays.npz` (NumPy arrays, no pickles) and
`manifest.json`. A port writes THEIRS/v1/<model>/<case>/arrays.npz, float64 or float32, with the same names.
It may leave arrays out: what is there is checked, what is not is listed, unless it was given. Of each case
some output must be there. Any other name is an error, as is an array of more than 64 times the bytes.

Arrays of model "induction" (B sequences of T positions, V tokens, width d, L ≥ T position vectors):

    input.tokens          (B, T+1) int64    token t+1 is the target of position t
    input.mask            (B, T) bool       the positions in the loss
    param.<field>         E (V,d)  U (V,d)  pos (L,d)  Phi WV WK1 WK2 WO WF (d,d)
    trace.<field>         x0 h1 x1 h2 x2 y (T,d)  scores1 attention1 scores2 attention2 (T,T)  logits (T,V)

Arrays of model "recall" (B prompts of T tokens, V tokens, m hidden units, L ≥ T position vectors):

    input.tokens          (B, T) int64
    input.targets         (B,) int64        token ids, within the slot
    param.<field>         E (V,d)  U (V,d)  P (L,dp)  WKQ (d+dp,d+dp)  W1 (m,d)  b1 (m,)  W2 (d,m)
    trace.<field>         rows (T,d+dp)  scores attention (T,)  x (d,)  preactivation hidden (m,)
                          y (d,)  logits (V,)

Arrays of both:

    loss                  ()                at the given parameters, in nats
    grad.<field>          as param          of that loss, for every field, moving or not
    sgd1.param.<field>, sgd1.momentum.<field>   after one SGD step, parameters and momentum buffers
    sgd3.param.<field>, sgd3.momentum.<field>   after three steps, **all on the same batch**

A trace is of the first sequence alone. Of induction it is tokens[0, :T], for which

    x0 = E[z]              + pos[t], if the encoding is "absolute"
    scores1[t,s] = x0[t] · WK1 (x0[s] + pos[t−s])      without pos[t−s], if "absolute"
    h1 = attention1 x0                                 attention: softmax over the keys s ≤ t
    x1 = x0 + Phi h1
    scores2[t,s] = x1[t] · WK2 x1[s]
    h2 = attention2 x1                                 before the value matrix, as is h1
    x2 = x1 + WO WV h2
    y = x2 + WF x2
    logits = U y

Scores and attention are written as 0 where s > t. The loss is the mean over all True positions of the
mask together, of −log softmax(logits[t])[token t+1]. Of recall, with φ(a) = a² ("square") or max(a, 0):

    rows[i] = [E[z[i]]; P[i]]
    scores[i] = rows[T−1] · WKQ rows[i]                of every token i: there is no mask
    attention = softmax(scores)
    x = Σ_i attention[i] E[z[i]]
    preactivation = W1 x + b1
    hidden = φ(preactivation)
    y = W2 hidden
    logits = U y

The loss is the mean over the prompts of −log softmax(logits[start:stop])[target − start]; slot null is the
whole vocabulary. The derivative of max(a, 0) at 0 is 0. A step of SGD, as PyTorch has it:

    g += weight_decay w;   buffer = momentum buffer + g, from zero;   w −= lr buffer

Fields that are not in `trained` keep their parameters, and their buffers stay zero. A port that has no
buffers (momentum 0, or of fields that do not move) leaves sgd1.momentum and sgd3.momentum out.

Manifest, a JSON object:

    schema        1;  model, case: as the folders
    why, flags    why the case is there; the kinds of mistake that it catches (strings)
    catches       the mistake that was planted when it was written, and changed its arrays, or ""
    setting       {"encoding": "relative" | "absolute"}, or
                  {"activation": "square" | "relu", "slot": [start, stop] | null}
    sgd           {"lr", "momentum", "weight_decay": numbers, "trained": [fields]}
    arrays        {name: {"shape": [sizes], "dtype": "float64" | "int64" | "bool"}}, in the order in
                  which they are compared: gradients in the order of backpropagation
    tolerances    {precision: {group: largest error allowed}}, `group` the name's first part
    reason        where they come from
    digits        {"reference", "float32": {group: digits}}: −log10 of the largest error, as defined below, of
                  this project's own run and of one in float32. "reference" is there if the arrays are not its
                  own but the correctly rounded ones, as in this project's tests/vectors
    seed          of numpy.random.default_rng, for the inputs
    versions      of Python, NumPy, Numba, refimpl when it was written

DIR/v1/SHA256SUMS lists the SHA-256 of every file of every case, as the program sha256sum does. A file that
differs, and a case that is listed and not there, fail.

The error of an array is max|theirs − ours| / max(max|ours|, floor). For param, grad and sgd the floor is
0.01 of the largest number of that group (`sgd1.momentum`, …), since a gradient that all but cancels
leaves only rounding; for trace it is 0.01, for the loss 0.01 of the largest logit, and at least 0.01. Inputs
must be equal.

Diagnosis
---------
Give traces: then each equation is held against your own inputs to it, and each mistake is named where it is
made, several in one run. Give logits, loss, gradients and steps: then a catalogue of mistakes is searched,
one at a time. A name explains more than half of what departs, to 1e-8 (1e-3 in float32); names that
explain it alike are joined by "or". Anything else is "unknown"; a loss alone, one number, always is.
detach(x) is x without its gradient, and Wᵀ a matrix that is used transposed.

Conventions, and their translation
----------------------------------
    weights              [out, in], they act on columns: a row goes through as x @ W.T. PyTorch's
                         F.linear(x, W) and nn.Linear.weight are the same; transpose a Flax kernel, [in, out]
    scores               x_t @ WK @ x_s: W_Q = I, no 1/√d. scaled_dot_product_attention divides by √d, unless
                         scale=1.0
    WKQ                  rows belong to the query, columns to the keys: rows[-1] @ WKQ @ rows[i]
    what is not there    layer normalisation, dropout, tied embeddings, biases (but b1 of recall): bias=False
    relative positions   pos[t−s] is added to the keys of layer 1, not to the values: (q1 @ pos.T)[t, t−s],
                         the index clamped before the mask, since a negative one wraps
    absolute positions   pos[t] is added to the embedding, and so is in everything above: E[z] + pos[:T]
    causal mask          keys s ≤ t, the query among them: −∞ before the softmax (a 0 is weight), then .tril()
    attention of recall  the last token asks, values carry no positions, there is no residual path
    loss                 one mean over the mask, in nats: cross_entropy(logits[mask], targets[mask]), or
                         jnp.mean(losses, where=mask)
    slot of recall       logits[:, start:stop], targets − start
    tokens of recall     subjects 0…N−1, answers N…2N−1, relations 2N…2N+R−1
    relu at 0            derivative 0, as of torch.relu and jax.nn.relu; ½ for maximum(x, 0) in both, 1 for
                         torch.clamp
    gradients            of every field, embeddings and positions too: the optimizer gets those in `trained`
    SGD                  torch.optim.SGD without dampening and Nesterov; AdamW decouples the decay
    precision            float64; torch.tensor keeps it; JAX needs jax_enable_x64, and even then its
                         dot_product_attention (0.10) rounds to float32

Why do my logits differ?
------------------------
The check mostly says it. Otherwise: logits are raw scores, whose exp need not add up to 1. The first token
has no key but itself, so in a text that begins with a trigger, a later trigger looks at position 0 more than
at its first successor. Before fine-tuning, the answers of a recall prompt tie: rounding decides between them.
float32 keeps about seven digits: `vectors check --precision float32` allows for that.
"""

from refimpl.vectors.compare import Report, conclusion
from refimpl.vectors.files import Vector, check_folder, compare, load, read, write

__all__ = ["Report", "Vector", "check_folder", "compare", "conclusion", "load", "read", "write"]
