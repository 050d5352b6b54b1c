"""dir() and tab completion show what scripts use, and nothing else."""

import inspect
import types

import torchcaffe as caffe

NET = """name: "s" layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1 dim: 2 } } }
layer { name: "i" type: "InnerProduct" bottom: "d" top: "i" inner_product_param { num_output: 1 } }
layer { name: "l" type: "EuclideanLoss" bottom: "i" bottom: "i" top: "l" }"""
SOLVER = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 2 snapshot_after_train: false'
# What real pycaffe shows (dir() of caffe.Net and caffe.SGDSolver of Caffe 1.0, names without underscore).
PYCAFFE_NET = """after_backward after_forward backward before_backward before_forward blob_loss_weights blobs bottom_names
clear_param_diffs copy_from forward forward_all forward_backward_all inputs layer_dict layers load_hdf5 outputs params
reshape save save_hdf5 set_input_arrays share_with top_names""".split()
PYCAFFE_SOLVER = "add_callback apply_update iter lr net param restore share_weights snapshot solve step test_nets".split()


def test_the_package_shows_its_public_names():
    shown = dir(caffe)
    assert {"Net", "get_solver", "set_mode_gpu", "io", "proto", "TEST", "TRAIN", "layer_type_list", "log"} <= set(shown)
    assert len(shown) == len(set(shown)) and [name for name in shown if name.startswith("_")] == ["__version__"]
    modules = {name for name in shown if isinstance(getattr(caffe, name), types.ModuleType)}
    assert all(getattr(caffe, name).__name__.startswith("torchcaffe.") for name in modules)
    assert not {"os", "sys", "importlib", "watch", "aliases", "ALIASES", "core"} & set(shown)
    assert {name for name, _ in inspect.getmembers(caffe)} == set(shown)  # each of them is there


def test_nets_and_solvers_show_their_public_names(make_solver):
    solver = make_solver(NET, SOLVER)
    net = solver.net
    for thing, wanted, inside in ((net, PYCAFFE_NET, "nodes"), (solver, PYCAFFE_SOLVER, "ranks")):
        shown = dir(thing)
        assert set(wanted) <= set(shown) and not [name for name in shown if name.startswith("_")]
        assert all(hasattr(thing, name) for name in shown)
        assert inside not in shown and hasattr(thing, inside)
        assert all(hasattr(thing, name) for name in type(thing)._internal)
    assert {"name", "phase", "device", "param", "copy_report"} <= set(dir(net))
    net.mine = 1
    assert "mine" in dir(net)
