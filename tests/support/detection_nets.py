"""SSD300 and Faster R-CNN on VGG16, written from their papers (Liu et al. 2016; Ren et al. 2015; Simonyan and Zisserman 2014).

`width` divides the numbers of filters, for tests that must be quick; 1 is the paper's net. torchcaffe.contrib must be
imported when they are written.
"""

from torchcaffe import NetSpec, layers as L, params as P

VGG_BLOCKS = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]  # filters, convolutions


MSRA, SMALL, SMALLER = dict(type="msra"), dict(type="gaussian", std=0.02), dict(type="gaussian", std=0.001)


def convolution(bottom, filters, kernel=3, pad=1, stride=1, dilation=1, filler=MSRA):
    return L.Convolution(
        bottom, num_output=filters, kernel_size=kernel, pad=pad, stride=stride, dilation=dilation, weight_filler=filler,
        param=[dict(lr_mult=1, decay_mult=1), dict(lr_mult=2, decay_mult=0)],
    )  # fmt: skip


def pooling(bottom, kernel=2, stride=2, pad=0):
    return L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=kernel, stride=stride, pad=pad)


def add_vgg(net, width, last_pool):
    """conv1_1 to relu5_3 on net.data, with pool1 to pool4; the last blob. `last_pool`: whether pool4 is the last one."""
    top = net.data
    for block, (filters, count) in enumerate(VGG_BLOCKS, 1):
        for number in range(1, count + 1):
            net[f"conv{block}_{number}"] = convolution(top, filters // width)
            top = net[f"relu{block}_{number}"] = L.ReLU(net[f"conv{block}_{number}"], in_place=True)
        if block < 5 or not last_pool:
            top = net[f"pool{block}"] = pooling(top) if block < 5 else pooling(top, 3, 1, 1)
    return top


# ---- SSD300: sections 2.1 and 3 of its paper
SSD_SOURCES = {  # blob -> (smallest and largest size in pixels, aspect ratios, step): 8732 boxes in all
    "conv4_3_norm": (30, 60, [2], 8),
    "fc7": (60, 111, [2, 3], 16),
    "conv6_2": (111, 162, [2, 3], 32),
    "conv7_2": (162, 213, [2, 3], 64),
    "conv8_2": (213, 264, [2], 100),
    "conv9_2": (264, 315, [2], 300),
}
SSD_EXTRA = {  # name of the two convolutions -> filters of each, stride and pad of the second
    "conv6": (256, 512, 2, 1),
    "conv7": (128, 256, 2, 1),
    "conv8": (128, 256, 1, 0),
    "conv9": (128, 256, 1, 0),
}


def ssd300(width=1, batch=1, classes=21, train=False):
    """The deploy net, or with `train` the net with its loss: inputs "data" and, for training, "label"."""
    net = NetSpec()
    net.data = L.Input(shape=dict(dim=[batch, 3, 300, 300]))
    if train:
        net.label = L.Input(shape=dict(dim=[1, 1, 1, 8]))
    top = add_vgg(net, width, last_pool=False)
    net.fc6 = convolution(top, 1024 // width, pad=6, dilation=6)
    net.relu6 = L.ReLU(net.fc6, in_place=True)
    net.fc7 = convolution(net.relu6, 1024 // width, kernel=1, pad=0)
    top = net.relu7 = L.ReLU(net.fc7, in_place=True)
    for name, (first, second, stride, pad) in SSD_EXTRA.items():
        net[f"{name}_1"] = convolution(top, first // width, kernel=1, pad=0)
        top = net[f"{name}_1_relu"] = L.ReLU(net[f"{name}_1"], in_place=True)
        net[f"{name}_2"] = convolution(top, second // width, pad=pad, stride=stride)
        top = net[f"{name}_2_relu"] = L.ReLU(net[f"{name}_2"], in_place=True)
    net.conv4_3_norm = L.Normalize(
        net.relu4_3, norm_param=dict(across_spatial=False, scale_filler=dict(type="constant", value=20), channel_shared=False)
    )
    add_ssd_heads(net, classes, SMALLER if train else SMALL)
    code = P.PriorBox.CENTER_SIZE
    if train:
        loss = dict(
            loc_loss_type=P.MultiBoxLoss.SMOOTH_L1, conf_loss_type=P.MultiBoxLoss.SOFTMAX, loc_weight=1, num_classes=classes,
            share_location=True, match_type=P.MultiBoxLoss.PER_PREDICTION, overlap_threshold=0.5, use_prior_for_matching=True,
            background_label_id=0, use_difficult_gt=True, neg_pos_ratio=3, neg_overlap=0.5, code_type=code,
            ignore_cross_boundary_bbox=False, mining_type=P.MultiBoxLoss.MAX_NEGATIVE,
        )  # fmt: skip
        net.mbox_loss = L.MultiBoxLoss(
            net.mbox_loc, net.mbox_conf, net.mbox_priorbox, net.label, multibox_loss_param=loss,
            loss_param=dict(normalization=P.Loss.VALID), propagate_down=[True, True, False, False],
        )  # fmt: skip
        return net.to_proto()
    net.mbox_conf_reshape = L.Reshape(net.mbox_conf, shape=dict(dim=[0, -1, classes]))
    net.mbox_conf_softmax = L.Softmax(net.mbox_conf_reshape, axis=2)
    net.mbox_conf_flatten = L.Flatten(net.mbox_conf_softmax, axis=1)
    net.detection_out = L.DetectionOutput(
        net.mbox_loc, net.mbox_conf_flatten, net.mbox_priorbox,
        detection_output_param=dict(
            num_classes=classes, share_location=True, background_label_id=0, nms_param=dict(nms_threshold=0.45, top_k=400),
            code_type=code, keep_top_k=200, confidence_threshold=0.01,
        ),
    )  # fmt: skip
    return net.to_proto()


def add_ssd_heads(net, classes, filler):
    """mbox_loc, mbox_conf and mbox_priorbox: the predictions from all sources, one after another."""
    parts = {"loc": [], "conf": [], "priorbox": []}
    for source, (low, high, ratios, step) in SSD_SOURCES.items():
        count = 2 + 2 * len(ratios)
        for what, numbers in (("loc", 4), ("conf", classes)):
            name = f"{source}_mbox_{what}"
            net[name] = convolution(net[source], count * numbers, filler=filler)
            net[f"{name}_perm"] = L.Permute(net[name], permute_param=dict(order=[0, 2, 3, 1]))
            net[f"{name}_flat"] = L.Flatten(net[f"{name}_perm"], axis=1)
            parts[what].append(net[f"{name}_flat"])
        net[f"{source}_mbox_priorbox"] = L.PriorBox(
            net[source], net.data,
            prior_box_param=dict(min_size=[low], max_size=[high], aspect_ratio=ratios, flip=True, clip=False,
                                 variance=[0.1, 0.1, 0.2, 0.2], step=step, offset=0.5),
        )  # fmt: skip
        parts["priorbox"].append(net[f"{source}_mbox_priorbox"])
    net.mbox_loc = L.Concat(*parts["loc"], axis=1)
    net.mbox_conf = L.Concat(*parts["conf"], axis=1)
    net.mbox_priorbox = L.Concat(*parts["priorbox"], axis=2)


# ---- Faster R-CNN: section 3 of its paper, with the head of Fast R-CNN
def faster_rcnn(size, width=1, hidden=4096, classes=21, train=0, proposals=None, proposal=None):
    """The net for images of `size` (height, width).

    train: number of given regions to train on; 0 for the deploy net, whose inputs are "data" and "im_info".
    proposals: settings of the Proposal layer. proposal: that layer itself, called with its three bottoms.
    """
    height, columns = size[0] // 16, size[1] // 16
    net = NetSpec()
    net.data = L.Input(shape=dict(dim=[1, 3, *size]))
    if not train:
        net.im_info = L.Input(shape=dict(dim=[1, 3]))
    features = add_vgg(net, width, last_pool=True)
    net["rpn_conv/3x3"] = convolution(features, 512 // width)
    net["rpn_relu/3x3"] = L.ReLU(net["rpn_conv/3x3"], in_place=True)
    net.rpn_cls_score = convolution(net["rpn_relu/3x3"], 18, kernel=1, pad=0, filler=SMALL)
    net.rpn_bbox_pred = convolution(net["rpn_relu/3x3"], 36, kernel=1, pad=0, filler=SMALL)
    net.rpn_cls_score_reshape = L.Reshape(net.rpn_cls_score, shape=dict(dim=[0, 2, -1, 0]))
    if train:
        for name, shape in {"rpn_labels": [1, 1, 9 * height, columns], "rpn_bbox_targets": [1, 36, height, columns],
                            "rpn_bbox_inside_weights": [1, 36, height, columns],
                            "rpn_bbox_outside_weights": [1, 36, height, columns], "rois": [train, 5], "labels": [train],
                            "bbox_targets": [train, 4 * classes], "bbox_inside_weights": [train, 4 * classes],
                            "bbox_outside_weights": [train, 4 * classes]}.items():  # fmt: skip
            net[name] = L.Input(shape=dict(dim=shape))
        net.rpn_loss_cls = L.SoftmaxWithLoss(net.rpn_cls_score_reshape, net.rpn_labels, loss_param=dict(ignore_label=-1, normalize=True))
        net.rpn_loss_bbox = L.SmoothL1Loss(
            net.rpn_bbox_pred, net.rpn_bbox_targets, net.rpn_bbox_inside_weights, net.rpn_bbox_outside_weights,
            smooth_l1_loss_param=dict(sigma=3),
        )  # fmt: skip
    else:
        net.rpn_cls_prob = L.Softmax(net.rpn_cls_score_reshape)
        net.rpn_cls_prob_reshape = L.Reshape(net.rpn_cls_prob, shape=dict(dim=[0, 18, -1, 0]))
        proposal = proposal or (lambda *bottoms: L.Proposal(*bottoms, proposal_param=proposals or dict(feat_stride=16)))
        net.rois = proposal(net.rpn_cls_prob_reshape, net.rpn_bbox_pred, net.im_info)
    net.roi_pool5 = L.ROIPooling(features, net.rois, roi_pooling_param=dict(pooled_w=7, pooled_h=7, spatial_scale=0.0625))
    top = net.roi_pool5
    for name in ("fc6", "fc7"):
        net[name] = L.InnerProduct(top, num_output=hidden, weight_filler=dict(type="msra"))
        net[f"relu{name[-1]}"] = L.ReLU(net[name], in_place=True)
        top = net[f"drop{name[-1]}"] = L.Dropout(net[name], in_place=True, dropout_ratio=0.5)
    net.cls_score = L.InnerProduct(top, num_output=classes, weight_filler=dict(type="gaussian", std=0.01))
    net.bbox_pred = L.InnerProduct(top, num_output=4 * classes, weight_filler=dict(type="gaussian", std=0.001))
    if train:
        net.loss_cls = L.SoftmaxWithLoss(net.cls_score, net.labels)
        net.loss_bbox = L.SmoothL1Loss(net.bbox_pred, net.bbox_targets, net.bbox_inside_weights, net.bbox_outside_weights)
    else:
        net.cls_prob = L.Softmax(net.cls_score)
    return net.to_proto()
