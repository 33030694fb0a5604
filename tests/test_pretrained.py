"""`bertjax.pretrained`: a model is the same from a work directory and from a Hugging Face directory."""

import jax
import numpy as np
import pytest
from directories import KINDS, model_of, ours, write

from bertjax import pretrained
from bertjax.errors import CheckpointError
