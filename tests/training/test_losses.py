import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.training import DISTILLATIONS
from hadas_jax.training.supernet import label_loss

B, K = 12, 5
alpha_divergence = jax.jit(DISTILLATIONS["alpha"])


@pytest.fixture(scope="module")
def logits():
    """Student's and teacher's, float32[B, K]: similar, surer, less sure."""
    rng = np.random.default_rng(0)
    teacher = rng.normal(0, 2, (B, K))
    student = teacher * np.repeat([0.3, 1.0, 3.0], B // 3)[:, None] + rng.normal(0, 0.5, (B, K))
    return student.astype(np.float32), teacher.astype(np.float32)


def softmax(x):
    e = np.exp(np.asarray(x, np.float64) - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def written_out(student, teacher):
    """Value and slope by log q of one sample's divergence, in float64; which alpha won."""
    q, p = softmax(student), softmax(teacher)
    weights = np.minimum(q / p, 5.0)
    negative, positive = 0.5 * (q * (weights - 1)).sum(), (p * np.log(p / q)).sum()
    if negative > positive:
        return negative, -q * weights, -1
    return positive, p, 1


def test_each_sample_takes_the_larger_divergence(logits):
    student, teacher = logits
    expected = [written_out(*pair) for pair in zip(student, teacher, strict=True)]
    assert {alpha for *_, alpha in expected} == {-1, 1}
    found = alpha_divergence(jnp.asarray(student), jnp.asarray(teacher))
    np.testing.assert_allclose(found, [value for value, *_ in expected], rtol=1e-4, atol=1e-5)


def test_its_gradient_is_that_of_the_clipped_importance_weights_and_the_teacher_gets_none(logits):
    student, teacher = logits
    found, to_teacher = jax.grad(lambda s, t: jnp.sum(alpha_divergence(s, t)), (0, 1))(*map(jnp.asarray, logits))
    for row, pair in zip(np.asarray(found), zip(student, teacher, strict=True), strict=True):
        _, slope, _ = written_out(*pair)
        np.testing.assert_allclose(row, -(slope - softmax(pair[0]) * slope.sum()), rtol=1e-3, atol=1e-5)
    assert (to_teacher == 0).all()


def test_unclipped_the_gradient_is_that_of_the_divergence_itself():
    """At weights below 5 nothing is clipped, and finite differences of the values agree."""
    student, teacher = np.log([0.9, 0.06, 0.04]), np.log([0.2, 0.45, 0.35])

    def value(x):
        return written_out(x, teacher)[0]

    assert written_out(student, teacher)[2] == -1
    steps = 1e-5 * np.eye(3)
    expected = [(value(student + step) - value(student - step)) / 2e-5 for step in steps]
    arrays = [jnp.asarray(x[None], jnp.float32) for x in (student, teacher)]
    found = jax.grad(lambda s, t: jnp.sum(alpha_divergence(s, t)))(*arrays)
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_a_student_that_equals_its_teacher_has_no_loss_and_no_slope(logits):
    same = jnp.asarray(logits[1])
    np.testing.assert_allclose(alpha_divergence(same, same), 0, atol=1e-5)
    slope = jax.grad(lambda s: jnp.sum(alpha_divergence(s, same)))(same)
    np.testing.assert_allclose(slope, 0, atol=1e-5)


def test_extreme_logits_keep_value_and_gradient_finite():
    student, teacher = jnp.array([[200.0, 0.0], [0.0, 0.0]]), jnp.array([[0.0, 200.0], [300.0, 0.0]])
    value, slope = jax.value_and_grad(lambda s: jnp.sum(alpha_divergence(s, teacher)))(student)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_label_and_soft_losses_are_cross_entropies(logits):
    student, teacher = logits
    labels = np.arange(B) % K
    targets = 0.9 * np.eye(K)[labels] + 0.1 / K
    logs = np.log(softmax(student))
    found = label_loss(jnp.asarray(student), jnp.asarray(labels), 0.1)
    np.testing.assert_allclose(found, -(targets * logs).sum(1), rtol=1e-4)
    found = DISTILLATIONS["kl"](jnp.asarray(student), jnp.asarray(teacher))
    np.testing.assert_allclose(found, -(softmax(teacher) * logs).sum(1), rtol=1e-4)
