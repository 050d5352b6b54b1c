"""What print, repr and notebooks show of nets, blobs, layers and solvers, and `torchcaffe summary`."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import torchcaffe as caffe
from torchcaffe.commands.cli import main
from torchcaffe.core import log, summary
from torchcaffe.formats.files import read_net

DEMO = ("deploy_gender", "deploy_smile", "deploy_identity", "deploy_attributes")
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }\n'
NET = 'name: "small"\n' + INPUT + """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "a" type: "InnerProduct" bottom: "conv" top: "a" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 5 } }
layer { name: "b" type: "InnerProduct" bottom: "conv" top: "b" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 5 } }
layer { name: "cut" type: "Slice" bottom: "a" top: "c" top: "d" slice_param { axis: 1 slice_point: 2 } }
layer { name: "sum" type: "Reduction" bottom: "b" top: "sum" }
"""


def numbers(words):
    return [int(word.replace(",", "")) for word in words]


class Cells(HTMLParser):
    """The texts of a table's cells, and the tags that it has."""

    def __init__(self, page):
        super().__init__()
        self.cells, self.tags = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag in ("td", "th", "caption"):
            self.cells.append("")

    def handle_data(self, data):
        self.cells[-1] += data


def test_the_table_of_a_net(make_net):
    """conv: 4·3·3·3 + 4; a: 5·(4·4·4) + 5, which b shares."""
    assert str(make_net(NET, caffe.TEST)).split("\n") == [
        "layer              type          output shape       parameters",
        "-" * 62,
        "data               Input         (2, 3, 6, 6)                0",
        "conv               Convolution   (2, 4, 4, 4)              112",
        "relu               ReLU          (2, 4, 4, 4)                0",
        "conv_relu_0_split  Split         2 of (2, 4, 4, 4)           0",
        "a                  InnerProduct  (2, 5)                    325",
        "b                  InnerProduct  (2, 5)                 shared",
        "cut                Slice         (2, 2), (2, 3)              0",
        "sum                Reduction     ()                          0",
        "-" * 62,
        "total: 437 parameters (1,748 bytes)",
    ]


@pytest.mark.parametrize("name", DEMO)
def test_parameters_of_the_papers_small_nets(root, name):
    """Against the sizes of the arrays, and of the products of the settings in the prototxt."""
    path = root / "prototxt" / "demo" / f"{name}.prototxt"
    net = caffe.Net(str(path), caffe.TEST)
    table = str(net).split("\n")
    sizes = {layer: sum(np.asarray(blob.data).size for blob in blobs) for layer, blobs in net.params.items()}
    shown = {line.split()[0]: numbers([line.split()[-1]])[0] for line in table[2:-2]}
    assert shown == {layer: sizes.get(layer, 0) for layer in net._layer_names}
    total = by_hand(read_net(str(path)))
    assert table[-1] == f"total: {total:,} parameters ({4 * total:,} bytes)" and total == sum(sizes.values())


def by_hand(definition):
    """Parameters of a chain of 3×3 convolutions of padding 1, 2×2 pooling rounded up, and fully connected layers."""
    total, shape = 0, None
    for layer in definition.layer:
        if layer.type == "Input":
            shape = list(layer.input_param.shape[0].dim)[1:]
        elif layer.type == "Convolution":
            kernel, outputs = layer.convolution_param.kernel_size[0], layer.convolution_param.num_output
            assert (kernel, layer.convolution_param.pad[0]) == (3, 1)
            total += outputs * (shape[0] * kernel * kernel + 1)
            shape[0] = outputs
        elif layer.type == "Pooling":
            shape[1:] = [-(-side // 2) for side in shape[1:]]
        elif layer.type == "InnerProduct":
            total += layer.inner_product_param.num_output * (int(np.prod(shape)) + 1)
            shape = [layer.inner_product_param.num_output]
    return total


def test_shapes_are_those_of_now_and_looking_computes_nothing(make_net):
    net = make_net(NET, caffe.TEST)
    net.blobs["data"].reshape(7, 3, 6, 6)
    net.reshape()
    assert "(7, 4, 4, 4)" in str(net) and "(2, 4, 4, 4)" not in str(net)
    str(net), repr(net), net._repr_html_()
    memories = [memory for blob in net.all_blobs for memory in (blob.data_memory, blob.diff_memory)]
    assert all(memory.host is None for memory in memories)
    assert all(blob.data_memory.tensor is None for blob in net.blobs.values())


def test_long_names_are_cut_in_the_middle(make_net):
    tops = " ".join(f'top: "t{index}"' for index in range(40))
    name = "first" + "x" * 200 + "last"
    net = make_net(INPUT + f'layer {{ name: "{name}" type: "Split" bottom: "data" {tops} }}\n'
                   + 'layer { name: "line\\n\\033[31mfeed" type: "ReLU" bottom: "t0" top: "t0" }'
                   + 'layer { name: "many" type: "DummyData" ' + "".join(f'top: "d{index}" ' for index in range(40))
                   + "dummy_data_param { " + 20 * "shape { dim: 1 } shape { dim: 2 } " + "} }", caffe.TEST)  # fmt: skip
    lines = str(net).split("\n")
    assert max(map(len, lines)) <= 120 and len(lines) == 2 + len(net.layers) + 2
    assert re.match(r"firstx+\.\.\.x+last ", lines[3]) and " 40 of (2, 3, 6, 6) " in lines[3]
    assert re.search(r" \(1,\), \(2,\), \(1,[, ()12]+\.\.\.[, ()12]+ \(2,\) +0$", lines[5])
    assert "line\\n\\x1b[31mfeed" in lines[4] and "\x1b" not in str(net)
    assert summary.shortened("abcdefghij", 10) == "abcdefghij"
    assert summary.shortened("abcdefghijk", 10) == "abcd...ijk"


def test_a_notebook_gets_a_table_with_everything_escaped(make_net):
    evil = "<script>alert('x')</script>&"
    net = make_net(NET.replace('"small"', f'"{evil}"').replace('name: "conv"', f'name: "{evil}"'), caffe.TEST)
    page = Cells(net._repr_html_())
    assert page.tags == {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
    assert page.cells[0].startswith(f'Net "{evil}" (TEST, cpu): 8 layers, ')
    assert page.cells[1:5] == ["layer", "type", "output shape", "parameters"]
    rows = [tuple(page.cells[start : start + 4]) for start in range(5, len(page.cells) - 2, 4)]
    assert rows == summary.rows(net) and rows[1] == (evil, "Convolution", "(2, 4, 4, 4)", "112")
    assert page.cells[-2:] == ["total", "437 parameters (1,748 bytes)"]


def test_each_thing_says_in_a_line_what_it_is(make_net):
    net = make_net(NET, caffe.TEST)
    assert repr(net) == '<Net "small" (TEST, cpu): 8 layers, 9 blobs, 437 parameters (1,748 bytes)>'
    net.__class__ = type("MyNet", (caffe.Net,), {})
    assert repr(net).startswith('<MyNet "small" (TEST, cpu): ')
    assert repr(net.blobs["data"]) == "<Blob (2, 3, 6, 6) float32 on cpu>"
    assert repr(net.params["a"]) == "[<Blob (5, 64) float32 on cpu>, <Blob (5,) float32 on cpu>]"
    assert repr(net.layers[1]) == '<Convolution layer "conv": (4, 3, 3, 3), (4,)>'
    assert repr(net.layers[2]) == '<ReLU layer "relu": no parameters>'


def test_solvers_say_where_they_stand(make_solver):
    text = """name: "s" layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1 dim: 2 } } }
        layer { name: "i" type: "InnerProduct" bottom: "d" top: "i" inner_product_param { num_output: 1 } }
        layer { name: "l" type: "EuclideanLoss" bottom: "i" bottom: "i" top: "l" }"""
    settings = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 2000 snapshot_after_train: false '
    solver = make_solver(text, settings + 'type: "Adam"')
    solver.step(2)
    assert repr(solver) == str(solver) == '<AdamSolver on cpu: iteration 2 of 2,000, net "s">'
    assert repr(make_solver(text, settings + "test_iter: 1 test_interval: 9")).endswith('net "s", 1 test net>')


def test_python_layers_are_called_by_their_class(make_net, tmp_path, monkeypatch):
    (tmp_path / "doubling.py").write_text("""import caffe
class Double(caffe.Layer):
    def setup(self, bottom, top): self.blobs.add_blob(3)
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TORCHCAFFE_PYTHON_LAYERS", "1")
    net = make_net(INPUT + 'layer { name: "two" type: "Python" bottom: "data" top: "two" '
                   'python_param { module: "doubling" layer: "Double" } }', caffe.TEST)  # fmt: skip
    assert summary.rows(net)[1] == ("two", "Python: Double", "(2, 3, 6, 6)", "3")
    assert repr(net.layers[1]) == '<Double, a Python layer, "two": (3,)>'
    assert repr(caffe.Layer()) == '<Layer, a Python layer, "": no parameters>'


# ---- the command


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run("net.prototxt -phase TRAIN") -> (exit status, stdout, stderr) of `torchcaffe summary`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(log.Settings, "minloglevel", None)
    monkeypatch.delenv("GLOG_minloglevel")
    (tmp_path / "net.prototxt").write_text(NET)

    def call(line):
        status = main(["summary", *line.split()])
        return (status, *capsys.readouterr())

    return call


def test_the_command_prints_the_table_and_no_log(run, make_net):
    assert run("net.prototxt") == (0, f"{make_net(NET, caffe.TEST)}\n", "")


def test_the_command_shows_one_phase_and_stage(run, tmp_path):
    name = 'layer { name: "%s" type: "ReLU" bottom: "data" top: "data" include { %s } }\n'
    (tmp_path / "net.prototxt").write_text(
        INPUT + name % ("learn", "phase: TRAIN") + name % ("score", "phase: TEST") + name % ("extra", 'stage: "more"'))
    shown = {line: [row.split()[0] for row in run("net.prototxt " + line)[1].split("\n")[2:-3]]
             for line in ("", "--phase TRAIN", "--phase=TEST -stage more")}
    assert shown == {"": ["data", "score"], "--phase TRAIN": ["data", "learn"],
                     "--phase=TEST -stage more": ["data", "score", "extra"]}


def test_the_command_says_what_weights_would_set(run, tmp_path, make_net):
    other = NET.replace('name: "conv"', 'name: "old"').replace('bottom: "conv" top: "c', 'bottom: "conv" top: "c')
    make_net(other, caffe.TEST).save(str(tmp_path / "old.caffemodel"))
    status, out, _ = run("net.prototxt --weights old.caffemodel")
    assert status == 0 and out.endswith(
        "old.caffemodel: copied 2 layers; left at their initial values: conv; not in this net: old\n")


def test_the_command_draws_no_random_numbers(run, tmp_path, monkeypatch):
    filler = 'num_output: 5 weight_filler { type: "%s" }'
    (tmp_path / "net.prototxt").write_text(NET.replace("num_output: 5", filler % "gaussian"))
    monkeypatch.setattr("torchcaffe.core.rng.Generator.normal", None)
    assert run("net.prototxt")[0] == 0
    (tmp_path / "net.prototxt").write_text(NET.replace("num_output: 5", filler % "gausian"))
    status, _, errors = run("net.prototxt")
    assert status == 1 and 'unknown filler type "gausian"' in errors and errors.count("\n") == 1


def test_the_papers_identity_net_has_the_parameters_of_its_released_weights(root):
    """In a process of its own: it takes 580 MB for a moment."""
    done = subprocess.run([sys.executable, "-m", "torchcaffe", "summary", "prototxt/paper/deploy_identity.prototxt"],
                          cwd=root, capture_output=True, text=True)  # fmt: skip
    assert done.stdout.endswith("total: 145,002,878 parameters (580,011,512 bytes)\n"), done.stderr
    assert done.returncode == 0 and max(map(len, done.stdout.split("\n"))) <= 120
