"""The zoo: codecs and models by name, folder or checkpoint."""

from lit_mbldm.zoo.load import list_pretrained, load_pretrained

__all__ = ["list_pretrained", "load_pretrained"]
