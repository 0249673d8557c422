"""Reference implementation of two small transformers as associative memories.

`refimpl.induction`   a two-layer attention transformer on trigger-bigram text
`refimpl.recall`      one attention layer in front of a memory of (subject, relation, answer) facts
`refimpl.associative` the outer-product memory that both stand on
`refimpl.sgd`         SGD with PyTorch's semantics, and a training loop as a generator
`refimpl.gradcheck`   complex step, adjoint identity, central differences
`refimpl.claims`      claims, their instances and controls, and the audit of them all
`refimpl.vectors`     test vectors: what a port to another framework must reproduce, and its check
"""

__version__ = "0.1.0"
