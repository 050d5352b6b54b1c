from torchcaffe.core.rng import *
