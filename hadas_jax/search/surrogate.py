"""A surrogate of accuracies: Gaussian processes on genomes, one per target, exact for some hundred backbones.

The kernel is a product over genes of how alike two choices are, exp(-r_g d(c, c')), where the distance d has a part
for any difference and a part for how far apart the choices stand, and the relevance r_g of a gene is learned, shared
by all targets. Each target has its own offset, scale and share of noise. Relevances and noise maximise the marginal
likelihood of random blocks of rows (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, chapter
5, https://gaussianprocess.org/gpml; blocks: Chen et al. 2020, https://arxiv.org/abs/2006.15779).
The product is linear in every gene's probabilities: for a relaxed genome, the prediction is exactly the expectation
over the genomes it stands for, and the standard deviation that of this expectation. So it has gradients, and no gap
between relaxed and real genomes at the corners.
Shapes: A rows of an archive, G genes, C choices of the longest gene, T targets, B rows of a block.
"""

from dataclasses import dataclass
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

_ANY_DIFFERENCE = 2 / 3  # share of the distance that two different choices have however close they are
_LEAST_NOISE = 1e-3  # of a target's variance: keeps float32 factors accurate
_USUAL_NOISE = 0.1
_LEAST_STD = 1e-6


@struct.dataclass
class SurrogateState:
    """A fitted surrogate.

    Attributes:
        rows: float32[A, G * C], one-hot genomes that it was fitted to.
        relevance: float32[G], r_g.
        offset: float32[T], in units of the target.
        scale: float32[T], standard deviation of the signal, in units of the target.
        noise: float32[T], variance of the noise over that of the signal.
        used: float32[T, A], 1 where a row has a target.
        factor: float32[T, A, A], Cholesky factors of the covariance over that of the signal.
        weights: float32[T, A], of the rows in the mean, in units of the target.
    """

    rows: jax.Array
    relevance: jax.Array
    offset: jax.Array
    scale: jax.Array
    noise: jax.Array
    used: jax.Array
    factor: jax.Array
    weights: jax.Array


@struct.dataclass
class _Learned:
    """What the marginal likelihood decides: log_relevance float32[G], log_noise float32[T]."""

    log_relevance: jax.Array
    log_noise: jax.Array


@dataclass(frozen=True)
class Surrogate:
    """Predicts targets, such as the accuracy at every exit, from genomes; static.

    Attributes:
        cardinalities: Number of choices of each gene.
        steps: Of Adam on the marginal likelihood.
        block: B, rows that a step looks at.
        learning_rate: Of Adam, on logarithms.

    Raises:
        ValueError: A number below 1, or a learning rate that is not positive.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from hadas_jax.search.surrogate import Surrogate
        >>> surrogate = Surrogate(cardinalities=(3, 2))
        >>> genomes = jnp.array([[0, 0], [1, 1], [2, 0], [2, 1]])
        >>> state = surrogate.fit(jax.random.key(0), genomes, jnp.array([[0.1], [0.2], [0.3], [0.3]]))
        >>> mean, std = surrogate.predict(state, jax.nn.one_hot(jnp.array([0, 1]), 3))
        >>> mean.shape, std.shape
        ((1,), (1,))
    """

    cardinalities: tuple[int, ...]
    steps: int = 40
    block: int = 128
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "cardinalities", tuple(int(c) for c in self.cardinalities))
        if min((*self.cardinalities, self.steps, self.block)) < 1 or self.learning_rate <= 0:
            raise ValueError(f"surrogate: expected numbers of at least 1 and a positive rate, got {self}")

    @partial(jax.jit, static_argnames="self")
    def fit(
        self, key: jax.Array, genomes: jax.Array, targets: jax.Array, mask: jax.Array | None = None
    ) -> SurrogateState:
        """Fits all targets; the same key and data give the same state.

        Args:
            key: Draws the blocks of rows.
            genomes: int32[A, G].
            targets: float32[A, T]; what is not finite counts as missing.
            mask: bool[A, T], which targets are there: none in the empty rows of an archive; None: all.

        Returns:
            The state. A target without any value is predicted as 0, give or take 1.

        Raises:
            AssertionError: Shapes do not fit.
        """
        self._check(genomes, targets, mask)
        present = jnp.isfinite(targets) & (True if mask is None else mask)
        used = present.astype(jnp.float32).T
        rows = jax.nn.one_hot(genomes, max(self.cardinalities)).reshape(genomes.shape[0], -1)
        offset, std, values = _standardise(jnp.where(present, targets, 0).astype(jnp.float32).T, used)
        learned = self._learn(key, rows, values, used)
        noise, relevance = _noise(learned), jnp.exp(learned.log_relevance)
        kernel = _kernel(_factors(relevance, rows, cardinalities=self.cardinalities), rows)
        factor, whitened, signal = jax.vmap(_decompose, in_axes=(None, 0, 0, 0))(kernel, noise, values, used)
        weights = jax.scipy.linalg.solve_triangular(factor, whitened[..., None], lower=True, trans=1)[..., 0]
        return SurrogateState(
            rows=rows,
            relevance=relevance,
            offset=offset,
            scale=std * jnp.sqrt(signal),
            noise=noise,
            used=used,
            factor=factor,
            weights=std[:, None] * weights,
        )

    def predict(self, state: SurrogateState, probabilities: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Predicts the targets of relaxed genomes; those of a genome at `jax.nn.one_hot(genome, C)`.

        Args:
            state: Of `fit`.
            probabilities: float32[..., G, C], of each choice of each gene, 0 past a gene's last choice.

        Returns:
            Mean and standard deviation of a new measurement, float32[..., T]. Leave the latter unused where it is
            not needed: compiled code then skips it, and it is most of the work.

        Raises:
            AssertionError: Probabilities of another shape.
        """
        shape = (len(self.cardinalities), max(self.cardinalities))
        chex.assert_shape(probabilities, (..., *shape), custom_message="probabilities")
        leading, flat = probabilities.shape[:-2], probabilities.reshape(-1, shape[0] * shape[1])
        factors = _factors(state.relevance, flat, cardinalities=self.cardinalities)
        near = _kernel(factors, state.rows)
        mean = state.offset[None] + near @ state.weights.T
        seen = state.used[:, :, None] * near.T[None]
        explained = jnp.sum(jax.scipy.linalg.solve_triangular(state.factor, seen, lower=True) ** 2, axis=1)
        prior = jnp.prod(jnp.sum(factors * flat.reshape(factors.shape), axis=2), axis=1)
        share = jnp.maximum(prior[None] - explained, 0.0) + state.noise[:, None]
        std = state.scale[None] * jnp.sqrt(share.T)
        return mean.reshape(*leading, -1), std.reshape(*leading, -1)

    def _learn(self, key: jax.Array, rows: jax.Array, values: jax.Array, used: jax.Array) -> _Learned:
        """Follows the marginal likelihood of random blocks: rows [A, GC], values and used [T, A]."""
        genes, count = len(self.cardinalities), rows.shape[0]
        usual = _Learned(
            log_relevance=jnp.full(genes, jnp.log(2.0 / genes)),
            log_noise=jnp.full(values.shape[0], jnp.log(_USUAL_NOISE)),
        )
        optimiser = optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.steps))
        filled = jnp.any(used > 0, axis=0)
        size = jnp.maximum(jnp.sum(filled), 1).astype(jnp.float32)

        def loss(learned: _Learned, block: jax.Array) -> jax.Array:
            picked = rows[block]
            factors = _factors(jnp.exp(learned.log_relevance), picked, cardinalities=self.cardinalities)
            misfits = jax.vmap(_misfit, in_axes=(None, 0, 0, 0))(
                _kernel(factors, picked), _noise(learned), values[:, block], used[:, block]
            )
            return jnp.sum(misfits) / jnp.maximum(jnp.sum(used[:, block]), 1.0) + _pull(learned, usual) / size

        def step(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
            learned, state = carry
            draws = jnp.where(filled, jax.random.uniform(key, (count,)), -1.0)
            block = jax.lax.top_k(draws, min(self.block, count))[1]
            gradient = jax.grad(loss)(learned, block)
            # Adam raises its decay, a float, to its count, an int: no strict promotion rule allows that.
            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(learned, updates), state), None

        keys = jax.random.split(key, self.steps)
        (learned, _), _ = jax.lax.scan(step, (usual, optimiser.init(usual)), keys)
        return learned

    def _check(self, genomes: jax.Array, targets: jax.Array, mask: jax.Array | None) -> None:
        rows, genes = len(genomes), len(self.cardinalities)
        chex.assert_shape(genomes, (None, genes), custom_message="genomes")
        chex.assert_shape(targets, (rows, None), custom_message="targets")
        if mask is not None:
            chex.assert_shape(mask, targets.shape, custom_message="mask")


def _factors(relevance: jax.Array, relaxed: jax.Array, *, cardinalities: tuple[int, ...]) -> jax.Array:
    """How alike relaxed genomes float32[Q, GC] are to each choice of each gene, float32[Q, G, C]."""
    distance = jnp.asarray(_distances(cardinalities))
    alike = jnp.exp(-relevance[:, None, None] * distance)
    return jnp.einsum("qgc,gcd->qgd", relaxed.reshape(-1, *distance.shape[:2]), alike)


def _kernel(factors: jax.Array, rows: jax.Array) -> jax.Array:
    """Covariances float32[Q, A] of what the factors are of with one-hot genomes float32[A, GC].

    Rows pick one factor of each gene, so that the logarithm of their product is a product of matrices.
    """
    return jnp.exp(jnp.log(factors).reshape(factors.shape[0], -1) @ rows.T)


def _distances(cardinalities: tuple[int, ...]) -> np.ndarray:
    """Distance d of each two choices of each gene, float32[G, C, C]; 1 between the ends of a gene."""
    place = np.arange(max(cardinalities))
    steps = np.abs(place[:, None] - place[None])[None] / np.maximum(np.array(cardinalities) - 1, 1)[:, None, None]
    return (_ANY_DIFFERENCE * (steps > 0) + (1 - _ANY_DIFFERENCE) * steps**2).astype(np.float32)


def _standardise(targets: jax.Array, used: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Targets [T, A], 0 where unused -> mean [T], standard deviation [T], and standardised values, 0 where unused."""
    count = jnp.sum(used, axis=1)
    offset = jnp.sum(targets * used, axis=1) / jnp.maximum(count, 1.0)
    centred = (targets - offset[:, None]) * used
    std = jnp.sqrt(jnp.sum(centred**2, axis=1) / jnp.maximum(count, 1.0))
    std = jnp.where(count > 1, jnp.maximum(std, _LEAST_STD), 1.0)
    return offset, std, centred / std[:, None]


def _noise(learned: _Learned) -> jax.Array:
    return _LEAST_NOISE + jnp.exp(learned.log_noise)


def _decompose(
    kernel: jax.Array, noise: jax.Array, values: jax.Array, used: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One target's factor [A, A], whitened values [A] and variance of the signal; unused rows stand apart."""
    covariance = kernel * used[:, None] * used[None, :] + jnp.diag(jnp.where(used > 0, noise, 1.0))
    factor = jnp.linalg.cholesky(covariance)
    whitened = jax.scipy.linalg.solve_triangular(factor, values, lower=True)
    # As if one more value had been seen, one standard deviation away.
    return factor, whitened, (jnp.sum(whitened**2) + 1.0) / (jnp.sum(used) + 1.0)


def _misfit(kernel: jax.Array, noise: jax.Array, values: jax.Array, used: jax.Array) -> jax.Array:
    """One target's negative logarithm of the marginal likelihood at the best variance of the signal."""
    factor, _, signal = _decompose(kernel, noise, values, used)
    return 0.5 * jnp.sum(used) * jnp.log(signal) + jnp.sum(jnp.log(jnp.diag(factor)))


def _pull(learned: _Learned, usual: _Learned) -> jax.Array:
    """What it costs to leave the usual values: unit normal priors on the logarithms."""
    relevance = jnp.sum((learned.log_relevance - usual.log_relevance) ** 2)
    return 0.5 * (relevance + jnp.mean((learned.log_noise - usual.log_noise) ** 2))
