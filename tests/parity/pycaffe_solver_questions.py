"""Questions about pycaffe's solvers, and about nets whose arrays come from memory."""

import os

import caffe  # noqa: E402
import numpy as np  # noqa: E402
from pycaffe_asking import ask, fill, members, numbers, run, write

SOLVER = """net: "NETFILE" base_lr: 0.1 lr_policy: "multistep" gamma: 0.5 stepvalue: 2 stepvalue: 3 momentum: 0.9
max_iter: 6 display: 2 random_seed: 3 type: "Nesterov" snapshot_prefix: "PREFIX" test_iter: 1 test_interval: 100
test_initialization: false"""
TRAIN_NET = """name: "train"
layer { name: "data" type: "DummyData" top: "data" top: "target" dummy_data_param {
  shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 } data_filler { value: 0.5 } data_filler { value: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
"""
MEMORY_NET = """layer { name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 2 channels: 1 height: 2 width: 2 } }
layer { name: "relu" type: "ReLU" bottom: "data" top: "relu" }"""


def solver_questions(folder):
    net = write(folder, "train.prototxt", TRAIN_NET)
    text = SOLVER.replace("NETFILE", net).replace("PREFIX", os.path.join(folder, "snap"))
    path = write(folder, "solver.prototxt", text)
    solver = caffe.get_solver(path)
    fill(solver.net)
    ask(
        "members of a solver",
        lambda: members(
            solver, "add_callback apply_update iter lr net param restore share_weights snapshot solve step test_nets"
        ),
    )
    ask("solver class", lambda: [type(solver).__name__, isinstance(solver, caffe.SGDSolver)])
    ask("direct class", lambda: type(caffe.AdamSolver(path)).__name__)
    ask(
        "solver.param",
        lambda: [solver.param.max_iter, solver.param.display, solver.param.layer_wise_reduce, solver.param.base_lr],
    )
    ask("solver.iter", lambda: solver.iter)
    ask(
        "test nets", lambda: [len(solver.test_nets), solver.test_nets[0].outputs, type(solver.test_nets).__name__ != ""]
    )
    for name in ("iter", "net", "test_nets", "lr", "param"):
        ask("assign solver." + name, run("solver.%s = 3" % name, solver=solver))
    for name in ("max_iter", "display", "layer_wise_reduce", "stepsize"):
        ask("assign param." + name, run("solver.param.%s = 3" % name, solver=solver))
    ask("lr", run("answer = solver.lr", solver=solver))
    ask("step result", lambda: solver.step(2))
    ask("after step", lambda: [solver.iter, solver.net.params["ip"][0].data, solver.net.params["ip"][0].diff])
    ask("lr moves", lambda: [solver.lr, solver.lr, solver.lr])
    ask("base_lr", run("solver.param.base_lr = 1.0; answer = solver.lr", solver=solver))
    ask("snapshot result", lambda: solver.snapshot())
    written = (".caffemodel", ".solverstate")  # our own record beside them is no answer of Caffe's
    ask("snapshot files", lambda: sorted(name for name in os.listdir(folder) if any(part in name for part in written)))
    order = []
    solver.add_callback(lambda: order.append("start"), lambda: order.append("ready"))
    ask("callbacks", run("solver.step(2); answer = order", solver=solver, order=order))
    ask(
        "apply_update",
        run(
            "before = solver.iter; solver.apply_update(); "
            "answer = [solver.iter - before, solver.net.params['ip'][1].diff]",
            solver=solver,
        ),
    )
    ask("solve", run("solver.solve(); answer = [solver.iter, solver.net.params['ip'][0].data]", solver=solver))
    ask(
        "solve resumes",
        run("solver.solve(%r); answer = solver.iter" % os.path.join(folder, "snap_iter_2.solverstate"), solver=solver),
    )
    ask(
        "restore",
        run(
            "solver.restore(%r); answer = [solver.iter, solver.net.params['ip'][0].data]"
            % os.path.join(folder, "snap_iter_2.solverstate"),
            solver=solver,
        ),
    )
    ask("one callback", lambda: solver.add_callback(lambda: 1))
    ask("step word", lambda: solver.step("2"))
    ask("step float", lambda: solver.step(1.5))
    ask(
        "share_weights",
        run(
            "solver.share_weights(solver.test_nets[0]); solver.net.params['ip'][0].data[...] = 5; "
            "answer = solver.test_nets[0].params['ip'][0].data",
            solver=solver,
        ),
    )

    def orphan():
        net = caffe.SGDSolver(path).net
        import gc

        gc.collect()
        return [net.forward()["loss"].shape, len(net.params)]

    ask("net outlives the solver", orphan)
    memory = caffe.Net(write(folder, "memory.prototxt", MEMORY_NET), caffe.TEST)
    images, labels = numbers(4, 1, 2, 2), np.arange(4, dtype=np.float32)
    ask(
        "set_input_arrays",
        run(
            "net.set_input_arrays(images, labels); "
            "answer = [net.forward()['relu'].copy(), net.forward()['label'].copy()]",
            net=memory,
            images=images,
            labels=labels,
        ),
    )
    ask("set_input_arrays float64", lambda: memory.set_input_arrays(images.astype(float), labels))
    ask("set_input_arrays odd", lambda: memory.set_input_arrays(images[:3], labels[:3]))
    ask("set_input_arrays lengths", lambda: memory.set_input_arrays(images, labels[:2]))
    ask("set_input_arrays axes", lambda: memory.set_input_arrays(images[0], labels))
    ask("set_input_arrays channels", lambda: memory.set_input_arrays(numbers(4, 2, 2, 2), labels))
    ask("set_input_arrays strided", lambda: memory.set_input_arrays(np.asfortranarray(numbers(4, 1, 2, 2)), labels))
