"""The `loader` mode of vs_pytorch.py: DINO's crops from JPEG files by Pillow and torchvision, and by our loader."""
import json
import pathlib
import random
import statistics
import subprocess
import sys
import time

import torch
try:
    import PIL
    import torchvision
    from PIL import Image, ImageFilter, ImageOps
    from torchvision import transforms
except ImportError as error:
    sys.exit(f"{error}; the loader mode needs torchvision and Pillow")

# The recipe of the paper with 6 local crops; ours has the same by default.
GLOBAL_SIZE, LOCAL_SIZE, LOCALS = 224, 96, 6
GLOBAL_SCALE, LOCAL_SCALE = (0.4, 1.0), (0.05, 0.4)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODES = {"exact": [], "--fast-decode": ["--fast-decode"]}


def blur(image):
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def view(size, scale, blur_probability, solarize_probability=0.0):
    """One crop: a Pillow image to a tensor [3, size, size]."""
    maybe = lambda probability, step: transforms.RandomApply([step], p=probability)
    steps = [transforms.RandomResizedCrop(size, scale=scale, interpolation=transforms.InterpolationMode.BICUBIC),
             transforms.RandomHorizontalFlip(0.5),
             maybe(0.8, transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)),
             transforms.RandomGrayscale(0.2),
             maybe(blur_probability, transforms.Lambda(blur))]
    if solarize_probability > 0:
        steps.append(maybe(solarize_probability, transforms.Lambda(ImageOps.solarize)))
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])


class Views:
    """All crops of an image file."""
    def __init__(self):
        local = view(LOCAL_SIZE, LOCAL_SCALE, 0.5)
        self.views = [view(GLOBAL_SIZE, GLOBAL_SCALE, 1.0), view(GLOBAL_SIZE, GLOBAL_SCALE, 0.1, 0.2), *[local] * LOCALS]

    def __call__(self, path):
        image = Image.open(path).convert("RGB")
        return [view(image) for view in self.views]


def their_rate(views, paths, seconds):
    """Images per second, from whole passes over the files."""
    start, passes = time.perf_counter(), 0
    while passes == 0 or time.perf_counter() - start < seconds:
        for path in paths:
            views(path)
        passes += 1
    return passes * len(paths) / (time.perf_counter() - start)


def our_rate(args, flags):
    command = [args.ours, "--json", "--data", args.data, "--workers", "1", "--seconds", str(args.seconds), "--loader-only",
               "--local-crops", str(LOCALS), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{args.ours} failed: {done.stderr.strip()}")
    return json.loads(done.stdout)["cases"][0]["loader"][0]["images_per_s"]


def compare(args):
    """Rounds of theirs and each of our modes, in turns. Prints and returns {"loader": [figures of a mode …]}."""
    torch.set_num_threads(1)
    paths = sorted(path for path in pathlib.Path(args.data).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        sys.exit(f"{args.data}: no .jpg or .jpeg files in this folder or below")
    print(f"{len(paths)} files, 2x{GLOBAL_SIZE} + {LOCALS}x{LOCAL_SIZE} crops, one thread each; "
          f"torchvision {torchvision.__version__}, Pillow {PIL.__version__}")
    views = Views()
    for path in paths[:16]:
        views(path)
    theirs, ours = [], {mode: [] for mode in MODES}
    for _ in range(args.rounds):
        theirs.append(their_rate(views, paths, args.seconds))
        for mode, flags in MODES.items():
            ours[mode].append(our_rate(args, flags))
    print(f"{'loader':14} {'ours img/s':>11} {'torchvision':>12}  ours / torchvision (rounds)")
    rows = []
    for mode, rates in ours.items():
        ratios = [a / b for a, b in zip(rates, theirs)]
        rows.append({"mode": mode, "ours": rates, "theirs": theirs, "ratio": statistics.median(ratios)})
        print(f"{mode:14} {statistics.median(rates):11.1f} {statistics.median(theirs):12.1f}  "
              f"{rows[-1]['ratio']:.2f} ({min(ratios):.2f}…{max(ratios):.2f})")
    return {"torchvision": torchvision.__version__, "pillow": PIL.__version__, "files": len(paths), "loader": rows}
