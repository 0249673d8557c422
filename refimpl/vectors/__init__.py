"""Test vectors: the arrays that a port of either model must reproduce, and the check that it does.

    python -m refimpl vectors write DIR             write the vectors
    python -m refimpl vectors check DIR THEIRS      compare a port's arrays with them

Format, version 1
-----------------
Each case is one folder, DIR/v1/<model>/<case>/, with `arrays.npz` (NumPy arrays, no pickles) and
`manifest.json`. A port writes THEIRS/v1/<model>/<case>/arrays.npz with the same array names; it needs
no manifest, and may leave arrays out: what is there is checked, what is not is listed (inputs and
parameters, which it was given, are not missed). Any other name is an error. THEIRS may be float64 or
float32, in either byte order.

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
    sgd1.param.<field>    as param          after one SGD step
    sgd1.momentum.<field> as param          the momentum buffers after it
    sgd3.param, sgd3.momentum               after three steps, **all on the same batch**

The equations stand at the top of `refimpl/induction/model.py` and `refimpl/recall/model.py`. In short:
a trace is of the first sequence alone (induction: tokens[0, :T]); weights are [out, in] and act on
columns, so a row of activations goes through as x @ W.T; scores are x_t @ WK @ x_s, without 1/√d. In
induction position t sees keys s ≤ t, and scores and attention are written as 0 where s > t; the
encoding is "absolute" (pos[t] is added to the embedding) or "relative" (pos[t−s] is added to the key in
layer 1 only). The loss is the mean over all True positions of the mask together. In recall the last
token alone asks, every token is a key, and the loss is the mean over prompts of the cross-entropy within
the slot start ≤ u < stop; slot null is the whole vocabulary. The derivative of max(x, 0) at 0 is 0.
SGD is PyTorch's: g += weight_decay w; buffer = momentum buffer + g, from zero; w −= lr buffer. Fields
that are not in `trained` keep their parameters, and their buffers stay zero.

Manifest, a JSON object:

    schema        1
    model, case   as the folders
    why, flags    why the case is there; the kinds of mistake that it catches (strings)
    catches       the mistake that was planted when it was written, and changed its arrays
    setting       {"encoding": "relative" | "absolute"}, or
                  {"activation": "square" | "relu", "slot": [start, stop] | null}
    sgd           {"lr", "momentum", "weight_decay": numbers, "trained": [fields]}
    arrays        {name: {"shape": [sizes], "dtype": "float64" | "int64" | "bool"}}, in the order in
                  which they are compared: gradients in the order of backpropagation
    tolerances    {precision: {group: largest error allowed}}, `group` the name's first part
    reason        where the tolerances and the error come from
    seed          of numpy.random.default_rng, for the inputs
    versions      of Python, NumPy, Numba, refimpl when it was written
    sha256        of arrays.npz

The error of an array is max|theirs − ours| / max(max|ours|, floor). For param, grad and sgd the floor is
0.01 of the largest number of that group (`sgd1.momentum`, …), since a gradient that all but cancels
leaves only rounding; for trace it is 0.01, for the loss 0.01 of the largest logit, and at least 0.01. Inputs
must be equal.
"""

from refimpl.vectors.compare import Report
from refimpl.vectors.files import Vector, check_folder, compare, conclusion, load, read, write

__all__ = ["Report", "Vector", "check_folder", "compare", "conclusion", "load", "read", "write"]
