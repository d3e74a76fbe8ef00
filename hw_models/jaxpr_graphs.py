"""The layers of a JAX function: what each primitive of its jaxpr asks of the hardware.

Loops of known length are followed (`scan`, and `fori_loop` of constant bounds), of several branches the dearest counts,
and calls (`jit`, `checkpoint`, custom derivatives) are seen through. Primitives of a batched function have the batch in
their shapes, so `jax.vmap` needs nothing of its own.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
from jax.extend import core

from hw_models.graphs import GraphLayers, Operator, Role, count_layers, product_kind
from hw_models.layers import LayerKind

_POOLS = (
    "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor reduce_window "
    "reduce_window_max reduce_window_min reduce_window_sum select_and_gather_add"
)
_NORMS = "cumlogsumexp cummax cummin cumprod cumsum"
_MAPS = (
    "abs acos acosh add and asin asinh atan atan2 atanh cbrt ceil clamp copy copy_p cos cosh digamma div eq erf "
    "erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg "
    "nextafter not or pow rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh "
    "sqrt square stop_gradient sub tan tanh xor"
)
_VIEWS = "bitcast_convert_type broadcast_in_dim convert_element_type expand_dims reduce_precision reshape squeeze"
_MOVES = (
    *("concatenate", "dynamic_slice", "dynamic_update_slice", "gather", "pad", "rev", "scatter", "scatter-add"),
    *("scatter_add", "slice", "split", "transpose"),
)
_ROLES = {
    name: role
    for names, role in (
        (_POOLS, Role.POOL),
        (_NORMS, Role.NORM),
        (_MAPS, Role.MAP),
        (_VIEWS, Role.VIEW),
    )
    for name in names.split()
} | dict.fromkeys(_MOVES, Role.MOVE)


def layers_of(function: Callable[..., Any], *examples: Any, batch: int = 1) -> GraphLayers:
    """Returns the layers of a JAX function for one sample.

    Args:
        function: Its last argument is what the network takes; what it closes over and its other arguments are weights.
        *examples: What it is called with: arrays, or trees of `jax.ShapeDtypeStruct`.
        batch: How many samples the last example holds.

    Returns:
        The layers, in the order in which they run.

    Raises:
        ValueError: One line: there is no example, or a loop whose length depends on the values.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> kernel = jax.ShapeDtypeStruct((8, 4), jnp.float32)
        >>> image = jax.ShapeDtypeStruct((1, 8), jnp.float32)
        >>> layers_of(lambda w, x: jax.nn.relu(x @ w), kernel, image).macs
        32
    """
    if not examples:
        raise ValueError("layers_of: expected at least one example, what the network takes, got none")
    closed = jax.make_jaxpr(function)(*examples)
    jaxpr, taken = closed.jaxpr, len(jax.tree.leaves(examples[-1]))
    walk = _Walk(batch)
    weights = [*jaxpr.constvars, *jaxpr.invars[: len(jaxpr.invars) - taken]]
    given = [walk.tensor(var.aval, fixed=var in weights) for var in (*jaxpr.constvars, *jaxpr.invars)]
    outputs = walk.run(jaxpr, given)
    return count_layers(walk.operators, sizes=walk.sizes, weights=walk.fixed, outputs=outputs, samples=batch)


class _Walk:
    """Collects the operators of a jaxpr and of those within it; tensors are numbers.

    Args:
        batch: Samples at once.

    Attributes:
        operators: What was collected.
        sizes: Elements of each tensor; of one that is fixed and differs from turn to turn of a loop, of all turns.
        fixed: Tensors that do not follow from the sample.
    """

    def __init__(self, batch: int) -> None:
        self.operators: list[Operator] = []
        self.sizes: dict[Hashable, int] = {}
        self.fixed: set[int] = set()
        self._batch, self._times = batch, 1
        self._varying: set[int] = set()  # from turn to turn of the loop at hand

    def tensor(self, aval: Any, *, fixed: bool, varying: bool = False) -> int:
        """Returns a new tensor."""
        number = len(self.sizes)
        self.sizes[number] = math.prod(aval.shape) * (self._times if fixed and varying else 1)
        if fixed:
            self.fixed.add(number)
        if varying:
            self._varying.add(number)
        return number

    def run(self, jaxpr: core.Jaxpr, given: Sequence[int]) -> list[int]:
        """Collects what a jaxpr runs on some tensors, constants first, and returns its outputs."""
        tensors: dict[core.Var, int] = dict(zip((*jaxpr.constvars, *jaxpr.invars), given, strict=True))

        def read(var: Any) -> int:
            return self.tensor(var.aval, fixed=True) if isinstance(var, core.Literal) else tensors[var]

        for equation in jaxpr.eqns:
            inputs = [read(var) for var in equation.invars]
            tensors |= zip(equation.outvars, self._equation(equation, inputs), strict=True)
        return [read(var) for var in jaxpr.outvars]

    def _equation(self, equation: core.JaxprEqn, inputs: list[int]) -> list[int]:
        name, is_fixed = equation.primitive.name, self.fixed.issuperset(inputs)
        if not is_fixed:
            if name in _CALLS:
                return self._inlined(next(equation.params[key] for key in _CALLED if key in equation.params), inputs)
            if name == "scan":
                return self._scan(equation, inputs)
            if name == "cond":
                return self._dearest(equation.params["branches"], inputs[1:])
            if name == "while":
                raise ValueError(
                    "layers_of: expected loops of known length, got a while loop; jax.lax.scan, or fori_loop between "
                    "two constants, says how often it runs"
                )
        varying = not self._varying.isdisjoint(inputs)
        outputs = [self.tensor(var.aval, fixed=is_fixed, varying=varying) for var in equation.outvars]
        if not is_fixed:
            self.operators.append(self._operator(equation, inputs, outputs))
        return outputs

    def _operator(self, equation: core.JaxprEqn, inputs: list[int], outputs: list[int]) -> Operator:
        name, role, kind, macs = equation.primitive.name, Role.UNKNOWN, LayerKind.ELEMENTWISE, 0
        if name in _PRODUCTS:
            role, (kind, macs) = Role.PRODUCT, _PRODUCTS[name](equation, [t in self.fixed for t in inputs], self._batch)
        elif name in _ROLES:
            role = _ROLES[name]
        where = str(equation.source_info.name_stack)
        shown = f"{where}/{name}" if where else f"{name}_{len(self.operators)}"
        return Operator(shown, name, role, tuple(inputs), tuple(outputs), kind, macs, times=self._times)

    def _inlined(self, jaxpr: Any, inputs: Sequence[int]) -> list[int]:
        if isinstance(jaxpr, core.ClosedJaxpr):
            constants = [self.tensor(var.aval, fixed=True) for var in jaxpr.jaxpr.constvars]
            return self.run(jaxpr.jaxpr, [*constants, *inputs])
        return self.run(jaxpr, inputs)

    def _dearest(self, branches: Sequence[Any], inputs: Sequence[int]) -> list[int]:
        """Runs the branch of most MACs, of equals the one that moves most."""
        before = len(self.operators)

        def price(number: int) -> tuple[int, int]:
            self._inlined(branches[number], inputs)
            tried, self.operators = self.operators[before:], self.operators[:before]
            moved = (self.sizes[t] * each.times for each in tried for t in (*each.inputs, *each.outputs))
            return sum(each.macs * each.times for each in tried), sum(moved)

        return self._inlined(branches[max(range(len(branches)), key=price)], inputs)

    def _scan(self, equation: core.JaxprEqn, inputs: Sequence[int]) -> list[int]:
        params, body = equation.params, equation.params["jaxpr"]
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        consts, init, xs = inputs[:first], inputs[first:last], inputs[last:]
        carried = [tensor in self.fixed for tensor in init]
        outer, before = (self._times, self._varying), len(self.operators)
        self._times, self._varying = self._times * params["length"], set(self._varying)
        avals = body.in_avals
        while True:  # a carry is fixed where it starts so and each turn leaves it so
            self.operators = self.operators[:before]
            turn = [
                self.tensor(aval, fixed=fixed, varying=True) if fixed or tensor in self.fixed else tensor
                for tensor, aval, fixed in zip(init, avals[first:last], carried, strict=True)
            ]
            turn += [
                self.tensor(aval, fixed=t in self.fixed, varying=True) for t, aval in zip(xs, avals[last:], strict=True)
            ]
            given = self._inlined(body, [*consts, *turn])
            kept = [fixed and out in self.fixed for fixed, out in zip(carried, given, strict=False)]
            if kept == carried:
                break
            carried = kept
        self._times, self._varying = outer
        rows = zip(given[last - first :], equation.outvars[last - first :], strict=True)
        stacked = [self.tensor(var.aval, fixed=out in self.fixed) for out, var in rows]
        # What each turn gives is stacked where it is written, which costs nothing beyond.
        for out, whole in zip(given[last - first :], stacked, strict=True):
            if whole not in self.fixed:
                self.operators.append(Operator("stack", "scan", Role.VIEW, (out,), (whole,)))
        return [*given[: last - first], *stacked]


_CALLS = (
    *("jit", "pjit", "closed_call", "core_call", "remat2", "remat", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # where they have what they call


def _shape(var: Any) -> tuple[int, ...]:
    return var.aval.shape


def _dot(equation: core.JaxprEqn, fixed: Sequence[bool], batch: int) -> tuple[LayerKind, int]:
    (contracted, others), (batched, _) = equation.params["dimension_numbers"]
    first, second, out = (_shape(var) for var in (*equation.invars[:2], equation.outvars[0]))
    inner = math.prod(first[axis] for axis in contracted)
    shared = math.prod(first[axis] for axis in batched)
    free = math.prod(second) // (math.prod(second[axis] for axis in others) * shared)
    of_weights = math.prod(first) // (inner * shared) if fixed[0] else free
    positions = math.prod(out) // max(of_weights * batch, 1)
    return product_kind(positions=positions), math.prod(out) * inner


def _convolution(equation: core.JaxprEqn, fixed: Sequence[bool], batch: int) -> tuple[LayerKind, int]:
    del fixed, batch
    params = equation.params
    _, (_, features, *spatial), (_, _, *pixels) = params["dimension_numbers"]
    sample, kernel, out = (_shape(var) for var in (*equation.invars[:2], equation.outvars[0]))
    taps, groups = math.prod(kernel[axis] for axis in spatial), params["feature_group_count"]
    kind = product_kind(
        positions=math.prod(out[axis] for axis in pixels),
        is_pointwise=taps == 1,
        is_depthwise=groups > 1 and kernel[features] == 1,
    )
    if math.prod(params["lhs_dilation"]) > 1:  # transposed: zeros between pixels are not multiplied
        return kind, math.prod(sample) * math.prod(kernel) // (kernel[features] * groups)
    return kind, math.prod(out) * taps * kernel[features]


_PRODUCTS = {"dot_general": _dot, "conv_general_dilated": _convolution}
