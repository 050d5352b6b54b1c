from torchcaffe.formats.files import *
