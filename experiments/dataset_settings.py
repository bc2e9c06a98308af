"""The settings of the data, the same in every experiment."""

from experiments.run.runner import Ingredient, default_path

dataset = Ingredient("dataset", save_git_info=False)


@dataset.config
def dataset_settings():
    name = "auto"  # auto, digits, cifar10 or image_folder
    root = default_path("data")  # the folder of CIFAR-10, or that holds train/ and test/
    size = None  # side of the images in pixels; unset: the data's own, 32 for a folder
    label = None  # what figures call the data; unset: the data's own name
    memory_mb = None  # a folder's images beyond it are read as needed; unset: half of what is here
