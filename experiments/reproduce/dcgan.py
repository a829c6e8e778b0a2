"""Deep convolutional generative adversarial nets (Radford, Metz & Chintala 2015)

Table 3: a nearest-neighbour classifier whose training set is generated. Section 5: the discriminator's features under
a linear SVM with few labels, by the protocol of the SVHN experiment. Section 3: each guideline undone on its own.
Section 6: lines between latents, and arithmetic on them. SVHN, CIFAR-10 and LSUN cannot be had here, so MNIST and
Fashion-MNIST take their place, with the data set's classifier as the judge of what was a matter of looking.
"""

from experiments.reproduce.dcgan_arithmetic import PARTS as ARITHMETIC
from experiments.reproduce.dcgan_features import PARTS as FEATURES
from experiments.reproduce.dcgan_guidelines import PARTS as GUIDELINES
from experiments.reproduce.dcgan_nearest import PARTS as NEAREST

PARTS = (*NEAREST, *FEATURES, *GUIDELINES, *ARITHMETIC)
