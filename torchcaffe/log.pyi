from torchcaffe.core.log import *
