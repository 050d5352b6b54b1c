"""Every kind of solver with every learning rate policy, and with each further setting: `solver_jobs(folder)`."""

ITERATIONS = 20
KINDS = {
    "SGD": "base_lr: 0.05 momentum: 0.9",
    "Nesterov": "base_lr: 0.05 momentum: 0.9",
    "AdaGrad": "base_lr: 0.02",
    "RMSProp": "base_lr: 0.005 rms_decay: 0.98",
    "AdaDelta": "base_lr: 1 momentum: 0.95 delta: 1e-6",
    "Adam": "base_lr: 0.005 momentum: 0.9 momentum2: 0.999",
}
POLICIES = {
    "fixed": "",
    "step": "gamma: 0.7 stepsize: 6",
    "exp": "gamma: 0.95",
    "inv": "gamma: 0.1 power: 0.75",
    "multistep": "gamma: 0.5 stepvalue: 5 stepvalue: 6 stepvalue: 13",
    "poly": "power: 1.5",
    "sigmoid": "gamma: 0.5 stepsize: 10",
}
SETTINGS = {
    "iter_size": "iter_size: 3",
    "clip_gradients": "clip_gradients: 0.2",
    "L1": 'weight_decay: 0.01 regularization_type: "L1"',
    "average_loss": "average_loss: 5",
    "all": 'iter_size: 2 clip_gradients: 0.3 weight_decay: 0.005 regularization_type: "L1" average_loss: 4',
}
# All random parts are drawn from the one seed: the data anew in each iteration, the fills, the dropout masks.
# Dropout over TanH is not in place: Caffe's TanH takes its gradient from its own output, which must still be there.
NET = """name: "small"
layer { name: "data" type: "DummyData" top: "data" top: "target" dummy_data_param {
  shape { dim: 6 dim: 2 dim: 9 dim: 9 } shape { dim: 6 dim: 3 }
  data_filler { type: "uniform" min: -1 max: 1 } data_filler { type: "uniform" min: 0 max: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 decay_mult: 1 }
  param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool" top: "ip1" param { lr_mult: 1 decay_mult: 0.5 }
  inner_product_param { num_output: 12 weight_filler { type: "uniform" min: -0.2 max: 0.2 } } }
layer { name: "tanh" type: "TanH" bottom: "ip1" top: "ip1" }
layer { name: "drop" type: "Dropout" bottom: "ip1" top: "drop" dropout_param { dropout_ratio: 0.4 } }
layer { name: "ip2" type: "InnerProduct" bottom: "drop" top: "ip2"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "ip2" bottom: "target" top: "loss" }
"""


def solver_jobs(folder):
    """Jobs for training.train_both: each kind with each policy, and each kind with each setting."""
    net = folder / "small.prototxt"
    net.write_text(NET)
    described = [(kind, policy, "plain", "weight_decay: 0.001") for kind in KINDS for policy in POLICIES]
    for index, kind in enumerate(KINDS):
        for turn, (name, text) in enumerate(SETTINGS.items()):
            described.append((kind, list(POLICIES)[(index + turn) % len(POLICIES)], name, text))
    jobs = []
    for number, (kind, policy, name, text) in enumerate(described):
        path = folder / f"solver{number}.prototxt"
        path.write_text(
            f'train_net: "{net}" type: "{kind}" {KINDS[kind]} lr_policy: "{policy}" {POLICIES[policy]} {text} '
            f"max_iter: {ITERATIONS} display: 1 random_seed: {number + 1} snapshot_after_train: false\n"
        )
        jobs.append({"name": f"{kind} {policy} {name}", "solver": str(path), "iterations": ITERATIONS})
    return jobs
