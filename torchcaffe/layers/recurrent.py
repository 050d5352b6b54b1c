"""Recurrent layers over T time steps of N streams: LSTM, RNN, and LSTMUnit, one step of the former.

A step's `cont` is 0 where a new sequence begins (the state is reset), otherwise 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from torchcaffe.core import fillers
from torchcaffe.layers.base import Layer, register


class Recurrent(Layer):
    """Bottoms: x (T×N×...), cont (T×N), perhaps a static input (N×...), with expose_hidden the state before the first step.

    Tops: y (T×N×D), with expose_hidden the state behind the last step. Each part of the state is 1×N×D. Where it is not
    exposed it begins at zero, and a forward goes on from where the last one ended. Exposed or not, no gradient goes into
    the state that is given nor comes from the state that is left, as in Caffe.
    """

    states = 1  # parts that the state has
    gates = 1  # numbers a unit and step that x gives
    input_names = step_names = ()  # names of the parameters: of those applied to x, and of those that each step uses
    in_place = False
    refuses_gradient = (1,)
    always_propagates = always_learns = True  # whoever asks: Caffe runs a whole net of its own backward

    def __init__(self, param, phase, context):
        super().__init__(param, phase, context)
        self.exposed = self.states if param.recurrent_param.expose_hidden else 0
        self.bottoms = (2 + self.exposed, 3 + self.exposed)
        self.tops = (1 + self.exposed, 1 + self.exposed)
        self.gradient_to = tuple(index for index in range(len(param.bottom)) if index != 1)
        self.state = None

    def setup(self, bottom, top):
        p = self.param.recurrent_param
        self.check(p.num_output > 0, "num_output must be positive")
        self.with_static = len(bottom) == 3 + self.exposed
        self.parameter_names = (
            *self.input_names, *([f"{self.input_names[0]}_static"] if self.with_static else ()), *self.step_names
        )
        x = bottom[0].dims
        self.check_shape(len(x) > 2, f"x needs 3 axes or more (time steps, streams, numbers ...), got shape {x}")
        self.steps, self.inputs, self.units = x[0], math.prod(x[2:]), p.num_output
        self.add_parameter((self.gates * self.units, self.inputs), p.weight_filler)
        self.add_parameter((self.gates * self.units,), p.bias_filler)
        if self.with_static:
            static = bottom[2].dims
            self.check_shape(len(static) > 1, f"the static input needs 2 axes or more, got shape {static}")
            self.static_inputs = math.prod(static[1:])
            self.add_parameter((self.gates * self.units, self.static_inputs), p.weight_filler)
        for shape, filler in self.step_parameters():
            self.add_parameter(shape, filler)
        # Caffe fills every step's copy before it shares the first: the draws that later layers see come behind those.
        for shape, filler in self.step_parameters() * (self.steps - 1):
            if filler.type != "constant":
                fillers.fill(filler, shape, self.context.generator)

    def step_parameters(self):
        """[(shape, filler)] of the parameters that every step uses."""
        raise NotImplementedError

    def shapes(self, x, cont, *others):
        steps, streams = x[0], x[1]
        self.check_shape(steps == self.steps, f"built for {self.steps} time steps, got {steps} from shape {x}")
        found = math.prod(x[2:])
        self.check_shape(found == self.inputs, f"built for {self.inputs} numbers a step, got {found} from shape {x}")
        self.check_shape(
            cont == (steps, streams), f"cont needs shape {(steps, streams)}, as x has {x}, and has {cont}"
        )
        if self.with_static:
            static, *others = others
            self.check_shape(
                static[0] == streams and math.prod(static[1:]) == self.static_inputs,
                f"the static input needs {streams} streams of {self.static_inputs} numbers, got shape {static}",
            )
        hidden = (1, streams, self.units)
        for shape in others:
            self.check_shape(shape == hidden, f"an exposed hidden state needs shape {hidden}, got {shape}")
        return [(steps, streams, self.units)] + [hidden] * self.exposed

    def forward(self, x, cont, *others):
        from_inputs = F.linear(x.flatten(2), self.weight(0), self.weight(1))
        if self.with_static:
            static, *others = others
            from_inputs = from_inputs + F.linear(static.flatten(1), self.weight(2))
        state = [part[0].detach() for part in (others if self.exposed else self.last_state(cont))]
        outputs = []
        for step, going_on in zip(from_inputs, cont.detach()[..., None]):
            output, state = self.step(step, going_on, state)
            outputs.append(output)
        y, state = torch.stack(outputs), [part[None].detach() for part in state]
        if self.exposed:
            return (y, *state)
        if not self.context.traceable:
            self.state = state
        return y

    def step(self, from_inputs, going_on, state):
        """(output N×D, next state) of one step. from_inputs: N×(gates D); going_on: N×1; state: a list of N×D."""
        raise NotImplementedError

    def last_state(self, cont):
        """The state to continue from. For another number of streams, as in Caffe: the first numbers in memory, then zeros."""
        shape, count = (1, cont.shape[1], self.units), cont.shape[1] * self.units
        if self.state is None or self.state[0].numel() < count:
            return [torch.zeros(shape, device=cont.device) for _ in range(self.states)]
        return [part.reshape(-1)[:count].reshape(shape) for part in self.state]

    def data_state(self):
        """The hidden state, from which the next batch continues."""
        return None if self.state is None else {"hidden": [part.tolist() for part in self.state]}

    def set_data_state(self, state):
        parts = [torch.tensor(part, dtype=torch.float32, device=self.context.device) for part in state["hidden"]]
        shapes = [tuple(part.shape) for part in parts]
        if len(parts) != self.states or any(len(shape) != 3 or shape[::2] != (1, self.units) for shape in shapes):
            raise ValueError(f"a hidden state is {self.states} times 1×N×{self.units}, not {shapes}")
        self.state = parts


@register
class RNN(Recurrent):
    """h = tanh(W_xh x + b_h + W_hh (cont h')), y = tanh(W_ho h + b_o).

    Parameters: W_xh (D×I), b_h (D), W_xh_static (D×S) where there is a static input, W_hh (D×D), W_ho (D×D), b_o (D).
    """

    type = "RNN"
    input_names, step_names = ("weight_xh", "bias_h"), ("weight_hh", "weight_ho", "bias_o")

    def step_parameters(self):
        p, square = self.param.recurrent_param, (self.units, self.units)
        return [(square, p.weight_filler), (square, p.weight_filler), ((self.units,), p.bias_filler)]

    def step(self, from_inputs, going_on, state):
        recurrent, weight, bias = (self.weight(index) for index in range(len(self.blobs) - 3, len(self.blobs)))
        hidden = torch.tanh(from_inputs + F.linear(state[0] * going_on, recurrent))
        return torch.tanh(F.linear(hidden, weight, bias)), [hidden]


@register
class LSTM(Recurrent):
    """Hochreiter and Schmidhuber's memory cells with forget gates; the state is h, then c; y is h of every step.

    Parameters: W_xc (4D×I), b_c (4D), W_xc_static (4D×S) where there is a static input, W_hc (4D×D), each in the order
    input gate, forget gate, output gate, cell input.
    """

    type = "LSTM"
    input_names, step_names = ("weight_xc", "bias_c"), ("weight_hc",)
    states = 2
    gates = 4

    def step_parameters(self):
        return [((4 * self.units, self.units), self.param.recurrent_param.weight_filler)]

    def step(self, from_inputs, going_on, state):
        hidden, cell = state
        gates = from_inputs + F.linear(hidden * going_on, self.weight(len(self.blobs) - 1))
        cell, hidden = lstm_unit(cell, gates, going_on)
        return hidden, [hidden, cell]


@register
class LSTMUnit(Layer):
    """One step of an LSTM. Bottoms: c' (1×N×D), the gates' sums (1×N×4D), cont (1×N); tops: c and h (1×N×D)."""

    type = "LSTMUnit"
    bottoms = (3, 3)
    tops = (2, 2)
    in_place = False
    gradient_to = (0, 1)
    refuses_gradient = (2,)

    def shapes(self, cell, gates, cont):
        self.check_shape(len(cell) == 3 and cell[0] == 1, f"bottom 0, the cells, needs shape (1, N, D), got {cell}")
        wanted = (1, cell[1], 4 * cell[2])
        self.check_shape(gates == wanted, f"bottom 1, the gates, needs shape {wanted}, got {gates}")
        self.check_shape(cont == cell[:2], f"bottom 2, cont, needs shape {cell[:2]}, got {cont}")
        return [cell, cell]

    def forward(self, cell, gates, cont):
        return lstm_unit(cell, gates, cont[..., None])


def lstm_unit(cell, gates, going_on):
    """(c, h) of one step, from c' (...×D), the gates' sums (...×4D) and cont (...×1)."""
    entering, forgetting, leaving, new = gates.chunk(4, -1)
    cell = going_on * torch.sigmoid(forgetting) * cell + torch.sigmoid(entering) * torch.tanh(new)
    return cell, torch.sigmoid(leaving) * torch.tanh(cell)
