"""Rows of the contract's table: continual learning."""

import jax
import jax.numpy as jnp
import optax

from subspace_jax.continual import coso, ease, gpm, igsp, measures, memory, sparc
from tests.rows import Row, arrays, bases, keys, normal, params

LABELS = jnp.array([0, 1, 1, 0, 1])


def trees(number):
    return lambda rng, dtype: tuple(params(rng, dtype) for _ in range(number))


def known(Q):
    return memory.append(memory.empty(len(Q), 4, dtype=Q.dtype), Q)


def appended(Q, V):
    found = memory.append(known(Q), V, 1)
    return found.Q @ found.Q.T


def gpm_memories(grads, X):
    inputs = {"w": X, "b": jnp.ones((len(X), 1), X.dtype)}
    return gpm.end_task(gpm.init(grads), inputs, threshold=0.7)


def coso_update(first, second):
    method = coso.optimizer(optax.sgd(0.1), rank=2, sketch_size=2, threshold=0.8)
    state = method.init(first)
    state = method.end_task(method.update(first, state, first)[1], first)
    return method.update(second, state, first)[0]


def prototypes(features):
    d = features.shape[-1]
    return ease.extend(ease.init(2, 3, d, dtype=features.dtype), features, LABELS)


def some_logits(features, x):
    return ease.logits(prototypes(features), x)[:2]


def assigned(V, W):
    start = sparc.init(len(V), rank=2, max_prompts=3, dtype=V.dtype)
    one = sparc.assign(start, V, threshold=0.9)[0]
    two, _, overlap = sparc.assign(one, W, threshold=0.9)
    return two.bases, overlap


def grown(down, up, router, x):
    """One expert, and two candidates of which the second stays."""
    experts = igsp.Experts(down, up, jnp.array(1))
    usage = jnp.array([0.5, 0.1, 0.4, 0.0], down.dtype)
    experts, router = igsp.prune(experts, router, usage, threshold=0.2)
    return igsp.apply(experts, igsp.route(router, x, experts.num_experts), x)


EXPERTS = arrays((4, 5, 2), (4, 2, 3), (5, 4), (5,))


CONTINUAL_ROWS = {
    "memory.empty": Row(lambda x: memory.empty(4, 2, dtype=x.dtype).Q, arrays(()), grad=False),
    "memory.append": Row(appended, bases(2, 2), grad=False),
    "memory.as_kernels": Row(memory.as_kernels, trees(1)),
    "memory.for_kernels": Row(
        lambda p: jax.tree.map(lambda x: x.astype(p["w"].dtype), memory.for_kernels(p)),
        trees(1),
        grad=False,
    ),
    "memory.map_kernels": Row(
        lambda p, q: memory.map_kernels(lambda W, V: W * V.sum(), p, q), trees(2)
    ),
    "memory.project_out": Row(
        lambda Q, W: memory.project_out({"w": known(Q)}, {"w": W}),
        lambda r, d: (*bases(2)(r, d), normal(r, (6, 3), d)),
        grad=False,
    ),
    "gpm.init": Row(lambda p: gpm.init(p)["w"].Q, trees(1), grad=False),
    "gpm.project": Row(
        lambda p, X: gpm.project(gpm_memories(p, X), p),
        lambda r, d: (params(r, d), normal(r, (9, 5), d)),
        grad=False,
    ),
    "gpm.end_task": Row(
        lambda p, X: gpm_memories(p, X)["w"].Q,
        lambda r, d: (params(r, d), normal(r, (9, 5), d)),
        grad=False,
    ),
    "gpm.remember": Row(
        lambda X: gpm.remember(
            memory.empty(X.shape[1], 3, dtype=X.dtype), X, threshold=0.8
        ).Q,
        arrays((9, 5)),
        grad=False,
    ),
    "coso.optimizer": Row(coso_update, trees(2), grad=False),
    "measures.average_accuracy": Row(measures.average_accuracy, arrays((4, 4))),
    "measures.average_accuracy_curve": Row(measures.average_accuracy_curve, arrays((4, 4))),
    "measures.backward_transfer": Row(measures.backward_transfer, arrays((4, 4))),
    "measures.forgetting": Row(measures.forgetting, arrays((4, 4))),
    "ease.init": Row(lambda x: ease.init(2, 3, 4, dtype=x.dtype).table, arrays(()), grad=False),
    "ease.class_means": Row(lambda x: ease.class_means(x, LABELS, 3), arrays((5, 4))),
    "ease.extend": Row(lambda x: prototypes(x).table, arrays((2, 5, 4))),
    "ease.synthesize": Row(ease.synthesize, arrays((2, 4), (3, 4), (3, 5))),
    "ease.logits": Row(some_logits, arrays((2, 5, 4), (2, 4))),
    "sparc.init": Row(
        lambda x: sparc.init(4, rank=2, max_prompts=3, dtype=x.dtype)[:3], arrays(()), grad=False
    ),
    "sparc.task_basis": Row(
        lambda X: sparc.task_basis(X, 2) @ sparc.task_basis(X, 2).T, arrays((9, 4))
    ),
    "sparc.overlap": Row(sparc.overlap, bases(2, 2)),
    "sparc.assign": Row(assigned, bases(2, 2), grad=False),
    "sparc.tokens": Row(
        lambda V, c: sparc.tokens(sparc.Prompts(V[None], V[None], c, 1), 0),
        lambda r, d: (*bases(2)(r, d), normal(r, (1, 3, 2), d)),
    ),
    "igsp.init": Row(
        lambda x: igsp.init(4, 5, 3, rank=2, dtype=x.dtype)[:2], arrays(()), grad=False
    ),
    "igsp.expand": Row(
        lambda down, up, key: igsp.expand(key, igsp.Experts(down, up, jnp.array(1)), 2)[:2],
        lambda r, d: (normal(r, (4, 5, 2), d), normal(r, (4, 2, 3), d), *keys(r, d)),
        grad=False,
    ),
    "igsp.route": Row(lambda R, x: igsp.route(R, x, 3), arrays((5, 4), (5,))),
    "igsp.apply": Row(
        lambda down, up, p, x: igsp.apply(igsp.Experts(down, up, jnp.array(2)), p, x),
        arrays((4, 5, 2), (4, 2, 3), (4,), (5,)),
    ),
    "igsp.new_share": Row(
        lambda down, up, p: igsp.new_share(igsp.Experts(down, up, jnp.array(2)), p),
        arrays((4, 5, 2), (4, 2, 3), (4,)),
    ),
    "igsp.only_new": Row(
        lambda down, up: igsp.only_new(igsp.Experts(down, up, jnp.array(2)), (down, up)),
        arrays((4, 5, 2), (4, 2, 3)),
    ),
    "igsp.prune": Row(grown, EXPERTS),
}  # fmt: skip
