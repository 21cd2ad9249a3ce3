"""Products by forward-mode differentiation of a trace that chunks of one shape share."""

import torch
from torch import Tensor
from torch.func import functional_call, jvp, vjp

from sharpfit.curvature.linearisation import Chunk, Linearisation, Parts, add_parts, storage_bytes
from sharpfit.curvature.network import Network, differentiable_kernels
from sharpfit.curvature.replay import Replay
from sharpfit.objective import SampleLoss


class Tracer:
    """The traces of one network and loss, by shape of the chunk.

    Parameters
    ----------
    network : Network
    loss : SampleLoss
    """

    def __init__(self, network: Network, loss: SampleLoss) -> None:
        self.network = network
        self.loss = loss
        self.parameters = tuple(parameter.detach() for parameter in network.parameters)
        self._traces: dict[tuple[object, ...], Replay] = {}

    def jacobian(self, chunk: Chunk, outputs: Tensor) -> Replay:
        """Return the trace of ``J v`` (group 0) and ``J^T u`` (group 1)."""
        return self._trace("jacobian", chunk, (self.parameters, (outputs,)))

    def hessian(self, chunk: Chunk) -> Replay:
        """Return the trace of ``H v`` (group 0)."""
        return self._trace("hessian", chunk, (self.parameters,))

    def fixed(self, chunk: Chunk) -> tuple[Tensor, ...]:
        """Return the fixed arguments of both traces."""
        return (*self.parameters, chunk.inputs, chunk.targets, chunk.weights)

    def _trace(self, kind: str, chunk: Chunk, groups: tuple[tuple[Tensor, ...], ...]) -> Replay:
        key = (kind, chunk.inputs.shape, chunk.targets.shape)
        if key not in self._traces:
            function = self._jacobian_function if kind == "jacobian" else self._hessian_function
            with differentiable_kernels():
                self._traces[key] = Replay(function, self.fixed(chunk), groups)
        return self._traces[key]

    def _call(self, parameters: Parts, inputs: Tensor) -> Tensor:
        named = dict(zip(self.network.selection.names, parameters, strict=True))
        outputs: Tensor = functional_call(self.network.module, named, (inputs,))
        return outputs

    def _jacobian_function(self, fixed: Parts, direction: Parts, cotangents: Parts) -> object:
        point, (inputs, _, _) = fixed[:-3], fixed[-3:]

        def outputs(parameters: Parts) -> Tensor:
            return self._call(parameters, inputs)

        product = jvp(outputs, (point,), (tuple(direction),))[1]
        pull = vjp(outputs, point)[1]
        return (product,), pull(cotangents[0])[0]

    def _hessian_function(self, fixed: Parts, direction: Parts) -> object:
        point, (inputs, targets, weights) = fixed[:-3], fixed[-3:]

        def gradient(parameters: Parts) -> Parts:
            outputs, pull = vjp(lambda p: self._call(p, inputs), parameters)[:2]
            return pull(weights * self.loss.gradient(outputs, targets))[0]

        return (jvp(gradient, (point,), (tuple(direction),))[1],)


class Traced(Linearisation):
    """Derivatives of a module that `torch.func` traces.

    Parameters
    ----------
    tracer : Tracer
    chunk : Chunk
    """

    def __init__(self, tracer: Tracer, chunk: Chunk) -> None:
        self.loss = tracer.loss
        self.chunk = chunk
        self._tracer = tracer
        with torch.no_grad():
            self.outputs = tracer.network.module(chunk.inputs)
        self._kept: dict[str, list[Tensor]] = {}

    def jacobian_product(self, direction: Parts) -> Tensor:
        """Return ``J v``; see `Linearisation`."""
        return self._replay("jacobian", 0, direction)[0]

    def add_transposed_product(self, cotangents: Tensor, total: Parts) -> None:
        """Add ``J^T u``; see `Linearisation`."""
        add_parts(total, tuple(self._replay("jacobian", 1, (cotangents,))))

    def add_hessian_product(self, direction: Parts, total: Parts) -> None:
        """Add ``H v``; see `Linearisation`."""
        add_parts(total, tuple(self._replay("hessian", 0, direction)))

    def state_bytes(self) -> int:
        """Return the bytes kept; see `Linearisation`."""
        kept = [tensor for tensors in self._kept.values() for tensor in tensors]
        return storage_bytes(kept, without=self._tracer.network.module.parameters())

    def _replay(self, kind: str, group: int, arguments: Parts) -> list[Tensor]:
        trace = (
            self._tracer.hessian(self.chunk)
            if kind == "hessian"
            else self._tracer.jacobian(self.chunk, self.outputs)
        )
        if kind not in self._kept:
            self._kept[kind] = trace.keep(self._tracer.fixed(self.chunk))
        return trace.replay(group, self._kept[kind], arguments)
