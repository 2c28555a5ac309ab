"""Writes the .pth files of this folder: python make_pth.py FOLDER (needs PyTorch and NumPy; see README.md)."""

import argparse
import collections
import pathlib
import sys
import zipfile

import numpy as np
import torch


def ramp(*shape):
    """0, 1, 2, ... in row-major order: what the tests expect to find."""
    return torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape)


def tensors():
    """Every layout and dtype a reader must understand."""
    shared = ramp(12)
    return collections.OrderedDict(
        dense=ramp(2, 3),
        transposed=ramp(3, 2).t(),  # strides [1, 2]
        sliced=ramp(4, 4)[1:3, 1:4:2],  # offset 5, strides [4, 2]
        expanded=ramp(3, 1).expand(3, 2),  # strides [1, 0]
        first_half=shared[:6],
        second_half=shared[6:].reshape(2, 3),
        half=(ramp(5) / 4 - 0.5).half(),
        bf16=(ramp(5) / 4 - 0.5).bfloat16(),
        double=ramp(3).double() / 3,
        long=torch.tensor([-(2**40), 0, 7]),
        int=torch.tensor([-5, 6], dtype=torch.int32),
        byte=torch.tensor([0, 255], dtype=torch.uint8),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(ramp(2, 2)),
    )


def training_checkpoint():
    """A checkpoint in the reference's layout after one step of a network of two layers."""
    torch.manual_seed(0)

    class Backbone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cls_token = torch.nn.Parameter(ramp(1, 1, 4))
            self.norm = torch.nn.LayerNorm(4)

    def network():
        backbone = Backbone()
        head = torch.nn.Module()
        head.mlp = torch.nn.Linear(4, 2)
        head.last_layer = torch.nn.utils.weight_norm(torch.nn.Linear(2, 3, bias=False))
        return torch.nn.ModuleDict({"backbone": backbone, "head": head})

    student, teacher = network(), network()
    # The schedules are NumPy arrays, so what the loop assigns to the groups is NumPy scalars.
    optimizer = torch.optim.AdamW([{"params": student.parameters()}, {"params": [], "weight_decay": 0.0}])
    optimizer.param_groups[0]["lr"] = np.linspace(0.0, 0.0005, 3)[1]
    optimizer.param_groups[0]["weight_decay"] = np.float64(0.04)
    sum((p**2).sum() for p in student.parameters()).backward()
    optimizer.step()
    return {
        "student": {"module." + k: v for k, v in student.state_dict().items()},
        "teacher": teacher.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(arch="vit_small", lr=0.0005, use_fp16=True, epochs=100, seed=-1, freeze=None,
                                   global_crops_scale=(0.4, 1.0)),
        "dino_loss": {"center": ramp(1, 3)},
        "fp16_scaler": {"scale": 65536.0, "growth_interval": 2000, "_growth_tracker": np.int64(1)},
    }


def to_zip64(source, target):
    """The same archive with every size and offset in ZIP64 fields, which torch itself uses beyond 4 GiB only."""
    zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT = 10, 1
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            with new.open(zipfile.ZipInfo(entry.filename), "w", force_zip64=True) as out:
                out.write(old.read(entry))


def main(folder):
    torch.save(tensors(), folder / "tensors.pth")
    torch.save(tensors(), folder / "tensors_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(training_checkpoint(), folder / "training_checkpoint.pth")
    to_zip64(folder / "tensors.pth", folder / "tensors_zip64.pth")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
