"""The algebra of subspaces and of linear relations: exact ranks, and one electrical network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import linalg
from subspace_jax.linalg import subspaces

pytestmark = pytest.mark.usefixtures("x64")

DIMENSIONS = [(8, 2, 1, 3), (7, 0, 2, 3), (6, 3, 0, 2), (5, 1, 0, 0), (4, 0, 4, 0), (1, 1, 0, 0)]
field = pytest.mark.parametrize(
    "dtype", [jnp.float64, pytest.param(jnp.complex128, marks=pytest.mark.slow)]
)


def normal(seed, shape, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def basis(seed, shape, dtype=jnp.float64):
    if shape[1] == 0:
        return jnp.zeros(shape, dtype)
    return linalg.orthonormalize(normal(seed, shape, dtype))


def projector(Q):
    return np.asarray(Q) @ np.asarray(Q).conj().T


def assert_same(Q, S, atol=1e-9):
    """As subspaces, and both bases orthonormal."""
    assert Q.shape == S.shape
    np.testing.assert_allclose(Q.conj().T @ Q, np.eye(Q.shape[1]), atol=1e-12)
    np.testing.assert_allclose(projector(Q), projector(S), atol=atol)


def meeting(n, c, a, b, dtype, seed=0):
    """Two subspaces with a common part of dimension c, and a and b of their own."""
    common, first, second = (normal(seed + i, (n, d), dtype) for i, d in enumerate((c, a, b)))
    Q, S = (jnp.concatenate(parts, axis=1) for parts in ((common, first), (common, second)))
    return subspaces.span(Q), subspaces.span(S), common


@field
@pytest.mark.parametrize(("m", "n", "r"), [(6, 4, 2), (3, 7, 3), (5, 5, 0), (1, 1, 1), (4, 0, 0)])
def test_a_span_has_the_rank_of_the_matrix_and_its_columns(m, n, r, dtype):
    A = normal(0, (m, r), dtype) @ normal(1, (r, n), dtype) * 1e3
    Q, N = subspaces.span(A), subspaces.null_space(A)
    assert Q.shape == (m, r)
    assert N.shape == (n, n - r)
    np.testing.assert_allclose(projector(Q) @ A, A, atol=1e-9)
    np.testing.assert_allclose(A @ N, 0, atol=1e-9)


@field
@pytest.mark.parametrize(("n", "c", "a", "b"), DIMENSIONS)
def test_sum_and_intersection_have_the_dimensions_that_were_put_in(n, c, a, b, dtype):
    Q, S, common = meeting(n, c, a, b, dtype)
    together, meet = subspaces.sum(Q, S), subspaces.intersection(Q, S)
    assert together.shape[1] == c + a + b
    assert_same(meet, subspaces.span(common))
    assert subspaces.contains(together, jnp.concatenate([Q, S], axis=1))
    assert subspaces.contains(Q, meet)
    assert subspaces.contains(S, meet)


@field
@pytest.mark.parametrize(("n", "c", "a", "b"), DIMENSIONS)
def test_complements_turn_sums_into_intersections(n, c, a, b, dtype):
    Q, S, _ = meeting(n, c, a, b, dtype)
    assert_same(
        subspaces.complement(subspaces.sum(Q, S)),
        subspaces.intersection(subspaces.complement(Q), subspaces.complement(S)),
    )
    assert_same(subspaces.complement(subspaces.complement(Q)), Q)


@field
def test_contains_is_exact_to_its_tolerance(dtype):
    Q = basis(0, (6, 3), dtype)
    inside = Q @ normal(1, (3, 2), dtype)
    outside = subspaces.complement(Q)[:, :1]
    assert subspaces.contains(Q, 1e5 * inside)
    assert subspaces.contains(Q, inside[:, 0])
    assert not subspaces.contains(Q, inside + 1e-12 * outside)
    assert subspaces.contains(Q, inside + 1e-12 * outside, rtol=1e-9)
    assert not subspaces.contains(Q[:, :0], inside)


@field
def test_the_pullback_holds_what_is_mapped_into_the_subspace(dtype):
    A, Q = normal(0, (5, 2), dtype) @ normal(1, (2, 6), dtype), basis(2, (5, 4), dtype)
    back = subspaces.pullback(A, Q)
    assert subspaces.contains(Q, A @ back)
    # dimension of the kernel and of the part of the image in Q: 4 + (2 + 4 - 5)
    assert back.shape == (6, 5)
    forth = subspaces.image(A, back)
    assert_same(forth, subspaces.intersection(Q, subspaces.span(A)))
    assert_same(subspaces.pullback(1e-9 * A, Q), back)


@field
def test_the_shadow_of_a_subspace_leaves_out_what_is_orthogonal(dtype):
    Q = basis(0, (7, 3), dtype)
    S = jnp.concatenate([Q[:, :1], subspaces.complement(Q)[:, :2]], axis=1)
    assert_same(subspaces.projection(Q, S), Q[:, :1])


@field
@pytest.mark.parametrize("k", [0, 1, 3, 5])
def test_restriction_and_contraction_are_dual_and_their_dimensions_add_up(k, dtype):
    V, S, rest = basis(0, (6, k), dtype), [0, 4, 2], [1, 3, 5]
    inside, alone = subspaces.restriction(V, S), subspaces.contraction(V, S)
    assert alone.shape[1] + subspaces.restriction(V, rest).shape[1] == k
    assert subspaces.contains(inside, alone)
    padded = jnp.zeros((6, alone.shape[1]), dtype).at[jnp.array(S)].set(alone)
    assert subspaces.contains(V, padded)
    # (V restricted to S)^perp = V^perp contracted to S
    assert_same(subspaces.complement(inside), subspaces.contraction(subspaces.complement(V), S))


@field
def test_the_composition_of_graphs_is_the_graph_of_the_product(dtype):
    A, B = normal(0, (3, 4), dtype), normal(1, (2, 3), dtype)

    def graph(M):
        return subspaces.span(jnp.concatenate([jnp.eye(M.shape[1], dtype=dtype), M]))

    assert_same(subspaces.composition(graph(A), graph(B), num_shared=3), graph(B @ A))


RELATIONS = [(3, 2, 3, 3, 2), (2, 3, 2, 4, 3), (4, 1, 0, 2, 1), (0, 3, 2, 2, 2), (2, 0, 3, 1, 2)]


@field
@pytest.mark.parametrize(("s", "p", "q", "k", "m"), RELATIONS)
def test_composition_equals_its_definition(s, p, q, k, m, dtype):
    V, W = basis(0, (s + p, k), dtype), basis(1, (p + q, m), dtype)
    found = subspaces.composition(V, W, num_shared=p)
    # {(f_S, f_P, f_P, f_Q)}, cut with f_P = f_P, seen on S and Q
    both = jnp.asarray(np.block([[V, np.zeros((s + p, m))], [np.zeros((p + q, k)), W]]), dtype)
    equal = np.zeros((p, s + 2 * p + q))
    equal[:, s : s + p], equal[:, s + p : s + 2 * p] = np.eye(p), -np.eye(p)
    cut = subspaces.intersection(both, subspaces.null_space(jnp.asarray(equal, dtype)))
    ends = [*range(s), *range(s + 2 * p, s + 2 * p + q)]
    assert_same(found, subspaces.restriction(cut, ends))


@field
@pytest.mark.parametrize(("s", "p", "q", "k", "m"), RELATIONS)
def test_the_dual_of_a_composition_is_the_composition_of_duals_with_a_sign(s, p, q, k, m, dtype):
    V, W = basis(0, (s + p, k), dtype), basis(1, (p + q, m), dtype)
    flipped = subspaces.complement(W).at[:p].multiply(-1)
    assert_same(
        subspaces.complement(subspaces.composition(V, W, num_shared=p)),
        subspaces.composition(subspaces.complement(V), flipped, num_shared=p),
    )


@field
@pytest.mark.parametrize(("n", "s", "k"), [(8, 4, 4), (7, 2, 5), (6, 5, 2), (5, 5, 3), (4, 0, 2)])
def test_a_decomposition_composes_to_the_whole_with_minimal_overlap(n, s, k, dtype):
    V = basis(0, (n, k), dtype)
    left, right = subspaces.decomposition(V, s)
    overlap = left.shape[0] - s
    inside, alone = (f(V, range(s)) for f in (subspaces.restriction, subspaces.contraction))
    assert overlap == inside.shape[1] - alone.shape[1]
    assert right.shape[0] == overlap + n - s
    assert_same(subspaces.composition(left, right, num_shared=overlap), V)


def test_a_loose_coupling_is_found_by_the_decomposition():
    blocks = [subspaces.span(normal(seed, shape)) for seed, shape in enumerate([(6, 3), (6, 4)])]
    V = subspaces.composition(*blocks, num_shared=1)
    left, right = subspaces.decomposition(V, 5)
    assert left.shape[0] - 5 <= 1
    assert_same(subspaces.composition(left, right, num_shared=left.shape[0] - 5), V)


def laplacian(num_nodes, edges, conductances):
    L = np.zeros((num_nodes, num_nodes))
    for (i, j), c in zip(edges, conductances, strict=True):
        L[i, i] += c
        L[j, j] += c
        L[i, j] -= c
        L[j, i] -= c
    return L


def kirchhoff(L, first, last):
    """All (potentials, currents) of ``first``, then of ``last``, that a network allows."""
    n, eye = len(L), np.eye(len(L))
    V = subspaces.span(jnp.asarray(np.concatenate([eye, L])))
    order = [*first, *(n + i for i in first), *last, *(n + i for i in last)]
    return V[np.array(order)]


def test_two_blocks_of_an_electrical_network_compose_to_the_whole():
    rng = np.random.default_rng(0)
    left, shared, right = [0, 1, 2], [3, 4], [5, 6, 7, 8]
    first_edges = [(0, 1), (1, 2), (0, 3), (2, 3), (2, 4)]
    last_edges = [(3, 5), (4, 6), (5, 6), (6, 7), (7, 8), (5, 8), (3, 4)]
    first = laplacian(9, first_edges, rng.uniform(1, 2, len(first_edges)))
    last = laplacian(9, last_edges, rng.uniform(1, 2, len(last_edges)))
    V = kirchhoff(first[np.ix_(left + shared, left + shared)], range(3), [3, 4])
    W = kirchhoff(last[np.ix_(shared + right, shared + right)], [0, 1], range(2, 6))
    W = W.at[2:4].multiply(-1)  # what leaves one block enters the other
    found = subspaces.composition(V, W, num_shared=4)
    # The oracle eliminates the nodes where no current comes in from outside (Kron reduction).
    whole, ends = first + last, left + right
    inner = np.linalg.solve(whole[np.ix_(shared, shared)], whole[np.ix_(shared, ends)])
    reduced = whole[np.ix_(ends, ends)] - whole[np.ix_(ends, shared)] @ inner
    assert_same(found, kirchhoff(reduced, range(3), range(3, 7)))
    # Two wires join the blocks: two potentials and two currents, less one for conservation
    # of charge and one for the choice of ground.
    a, _ = subspaces.decomposition(found, 6)
    assert a.shape[0] - 6 == 2 + 2


def test_under_jit_the_rank_is_static():
    Q, S, _ = meeting(8, 2, 1, 3, jnp.float64)
    V, W = basis(0, (5, 3)), basis(1, (5, 2))

    @jax.jit
    def everything(Q, S, V, W):
        return (
            subspaces.sum(Q, S, rank=6),
            subspaces.intersection(Q, S, rank=2),
            subspaces.restriction(V, [0, 1], rank=2),
            subspaces.contraction(V, [0, 1, 2], rank=1),
            subspaces.composition(V, W, num_shared=2, rank=3),
        )

    host = (
        subspaces.sum(Q, S),
        subspaces.intersection(Q, S),
        subspaces.restriction(V, [0, 1]),
        subspaces.contraction(V, [0, 1, 2]),
        subspaces.composition(V, W, num_shared=2),
    )
    for traced, known in zip(everything(Q, S, V, W), host, strict=True):
        assert_same(traced, known)
    left, right = jax.jit(lambda V: subspaces.decomposition(V, 2, ranks=(0, 1)))(V)
    assert_same(subspaces.composition(left, right, num_shared=left.shape[0] - 2), V)
    with pytest.raises(ValueError, match=r"traced matrix \(8, 7\) is not known: pass rank="):
        jax.jit(subspaces.sum)(Q, jnp.concatenate([S[:, :4]], axis=1))


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_named():
    Q = jnp.eye(4)[:, :2]
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(5, 2\)"):
        subspaces.sum(Q, jnp.eye(5)[:, :2])
    with pytest.raises(ValueError, match=r"0\.\.3"):
        subspaces.restriction(Q, [0, 4])
    with pytest.raises(ValueError, match=r"0\.\.2, got 3"):
        subspaces.span(Q, rank=3)
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(4, 2\) do not share 5"):
        subspaces.composition(Q, Q, num_shared=5)
    with pytest.raises(ValueError, match=r"map \(3, 3\) .* subspace \(4, 2\)"):
        subspaces.image(jnp.eye(3), Q)
