from torchcaffe.distributed.parallel import *
