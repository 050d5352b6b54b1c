from torchcaffe.core.errors import *
