from torchcaffe.formats.export import *
