import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl import gradcheck, induction
from refimpl.induction import Bigram, construct, forward, init, orthonormal_frame, theory
from tests import strategies


@given(st.integers(2, 6), st.integers(1, 8), strategies.encodings, strategies.seeds)
def test_frame_rows_are_one_orthonormal_set(V, L, encoding, seed):
    frame = orthonormal_frame(V, L, np.random.default_rng(seed), encoding)
    rows = [frame.E, frame.E @ frame.Phi.T, frame.U, frame.pos]
    rows = np.vstack(rows + ([frame.pos @ frame.Phi.T] if encoding == "absolute" else []))
    assert len(rows) == frame.E.shape[1]        # no dimension is left over
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-13)
    np.testing.assert_allclose(frame.WV @ frame.WV.T, np.eye(len(rows)), atol=1e-13)
    assert not any(W.any() for W in frame[5:])


def test_construct_writes_the_memories_it_names(rng):
    frame, bigram = orthonormal_frame(4, 6, rng), Bigram.random(4, rng)
    params = construct(frame, bigram, [1, 3], 2.0, 3.0, 5.0)
    E, U, images = params.E, params.U, params.E @ params.Phi.T
    assert gradcheck.relative_error(E @ params.WK1 @ params.pos.T,
                                    2 * np.outer(np.ones(4), np.arange(6) == 1)) < 1e-13
    assert gradcheck.relative_error(E @ params.WK2 @ images.T, 3 * np.diag([0.0, 1, 0, 1])) < 1e-13
    assert gradcheck.relative_error(U @ params.WO @ (E @ params.WV.T).T, 5 * np.eye(4)) < 1e-13
    assert gradcheck.relative_error(U @ params.WF @ E.T, np.log(bigram.pi_b).T) < 1e-13


@pytest.mark.parametrize("L0", [None, 1, 4, 6])
def test_absolute_memory_ends_at_the_training_length(L0, rng):
    frame = orthonormal_frame(3, 6, rng, "absolute")
    params = construct(frame, Bigram.random(3, rng), 1, 2.0, 0, 0, "absolute", L0)
    stored = [[2.0 * (s == t - 1 and 1 <= t < (L0 or 6)) for s in range(6)] for t in range(6)]
    np.testing.assert_allclose(params.pos @ params.WK1 @ params.pos.T, stored, atol=1e-13)
    np.testing.assert_allclose(params.E @ params.WK1, 0, atol=1e-13)


def test_construct_leaves_its_frame_alone_and_keeps_float32(rng):
    frame = init(4, 9, 5, rng)
    single = induction.Params(*(a.astype(np.float32) for a in frame))
    for array in frame + single:
        array.setflags(write=False)
    bigram = Bigram.random(4, rng)
    assert all(a.dtype == np.float32 for a in construct(single, bigram, 2, 1, 1, 1))
    assert (frame.WK1 == 0).all() and (construct(frame, bigram, 2, 1, 1, 1).WK1 != 0).any()


def test_one_position_stores_no_previous_token(rng):
    for encoding in ("relative", "absolute"):
        params = construct(orthonormal_frame(3, 1, rng, encoding), Bigram.random(3, rng), 1, 1, 1, 1,
                           encoding)
        assert (params.WK1 == 0).all()
        assert forward(params, [2], encoding).attention1 == 1


def test_zeros_of_a_bigram_are_met_on_purpose(rng):
    bigram = Bigram.from_text("aabab")          # nothing but a follows b
    with pytest.raises(ValueError, match=r"pi_b\[1, 1\] = 0.*prior"):
        construct(orthonormal_frame(2, 3, rng), bigram, 1, 1, 1, 1)
    with np.errstate(divide="ignore"):
        logits = theory.logits([0, 1], np.log(bigram.pi_b), [0], 1, 1, 9)
    assert logits[1, 1] == -np.inf and np.isfinite(logits[0]).all()     # whatever the context says


@pytest.mark.parametrize("change, name", [
    (dict(b1=np.nan), "b1"), (dict(b2=np.inf), "b2"), (dict(bo=-1), "bo"), (dict(b1="1"), "b1"),
    (dict(triggers=5), "triggers"), (dict(triggers=[0, 0]), "triggers"), (dict(triggers=[]), "triggers"),
    (dict(encoding="none"), "encoding"), (dict(train_length=3), "train_length"),
    (dict(encoding="absolute", train_length=0), "train_length"),
    (dict(encoding="absolute", train_length=7), "train_length"), (dict(frame=None), "params")])
def test_bad_arguments_of_construct_are_named(change, name, rng):
    arguments = {**dict(frame=orthonormal_frame(4, 6, rng), bigram=Bigram.random(4, rng), triggers=2,
                        b1=1, b2=1, bo=1), **change}
    with pytest.raises(ValueError, match=f"^{name}:"):
        construct(**arguments)


def test_bigram_of_another_size_is_refused(rng):
    with pytest.raises(ValueError, match="^pi_b:"):
        construct(orthonormal_frame(4, 6, rng), Bigram.random(5, rng), 2, 1, 1, 1)


@pytest.mark.parametrize("sizes, name", [((1, 3), "V"), ((3, 0), "L")])
def test_bad_sizes_of_frames_are_named(sizes, name, rng):
    with pytest.raises(ValueError, match=f"^{name}:"):
        orthonormal_frame(*sizes, rng)
    with pytest.raises(ValueError, match="^encoding:"):
        orthonormal_frame(3, 3, rng, "rotary")
