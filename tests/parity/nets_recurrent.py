"""LRCN's captioner: two LSTMs that write sentences about image features."""

import net_data
from nets_lines import dense

from torchcaffe import NetSpec, layers, params

VOCABULARY, FEATURES = 8801, 1000
FILLER = dict(type="uniform", min=-0.08, max=0.08)


def lrcn(at):
    """Donahue et al., "Long-term recurrent convolutional networks for visual recognition and description", 2015: factored.

    `at.side` is the number of time steps, `at.batch` that of sentences at once.
    """
    net, words = NetSpec(), at.units(VOCABULARY)
    net.words, net.next = steps(at, net_data.sentences(at.folder, at.count, at.side, at.batch, words), ntop=2)
    net.going_on = steps(at, net_data.sentences(at.folder, at.count, at.side, at.batch, words, starts=True))
    net.features = at.records(net_data.numbers(at.folder, at.count, at.units(FEATURES)))
    shape = dict(shape=dict(dim=[at.side, at.batch]))
    net.input_sentence = layers.Reshape(net.words, **shape)
    net.target_sentence = layers.Reshape(net.next, **shape)
    net.cont_sentence = layers.Reshape(net.going_on, **shape)
    net.embedded = layers.Embed(
        net.input_sentence, input_dim=words, num_output=at.units(1000), bias_term=False, weight_filler=FILLER
    )
    cell = dict(num_output=at.units(1000), weight_filler=FILLER)
    net.lstm1 = layers.LSTM(net.embedded, net.cont_sentence, recurrent_param=cell)
    net.lstm2 = layers.LSTM(net.lstm1, net.cont_sentence, net.features, recurrent_param=cell)
    net.predict = dense(net.lstm2, words, FILLER, axis=2)
    net.loss = layers.SoftmaxWithLoss(net.predict, net.target_sentence, softmax_param=dict(axis=2), loss_weight=20)
    return net.to_proto()


def steps(at, source, **more):
    return layers.Data(source=str(source), backend=params.Data.LMDB, batch_size=at.side * at.batch, **more)
