#!/usr/bin/env python3
"""Times PyTorch beside our benches, on the same shapes. For development: nothing in the product needs Python.

  bench/vs_pytorch.py ops --ours build/release/bench/ops_bench [--filter linear]
  bench/vs_pytorch.py steps --ours build/release/bench/step_bench [--precision bf16] [--filter micro] [--json FILE]
  bench/vs_pytorch.py loader --ours build/release/bench/loader_bench --data photos [--json FILE]

On a GPU: --device cuda, and cuda_bench for `ops`. `ops` times single operations, ours and then PyTorch's. `steps` times
whole training steps, `loader` the making of crops from files, ours and PyTorch's in turns, since other programs disturb
both.
"""
import argparse
import contextlib
import datetime
import importlib.util
import json
import math
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

if importlib.util.find_spec("torch") is None:
    sys.exit(f"{sys.executable} has no PyTorch; run this with a Python that has it")
import torch
import torch.nn.functional as F
from torch import nn

# --- ops ---


def our_rows(args):
    """[(name, microseconds)] of our bench."""
    if args.device == "cuda":
        command = [args.ours, "--json", "--precision", args.precision, "--filter", args.filter]
        return [(row["name"], row["us"]) for row in json.loads(subprocess.check_output(command))["ops"]]
    command = [args.ours, "--json", "--threads", str(args.threads), "--benchmark_filter=" + args.filter]
    rows = json.loads(subprocess.check_output(command))["benchmarks"]
    return [(row["name"].removesuffix("/real_time"), row["real_time"]) for row in rows]


def microseconds(body, device):
    """Mean time of one call, of as many as fill a fifth of a second."""
    def run(calls):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            body()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    run(2)
    calls = 2
    while (seconds := run(calls)) < 0.2:
        calls *= 4
    return seconds / calls * 1e6


def shapes_of(parts):
    return [tuple(int(extent) for extent in part.split("x")) for part in parts]


def call_of(name, device, dtype):
    """A call of PyTorch that computes what the bench of that name does; None if there is no counterpart."""
    op, direction, *rest = name.split("/")
    shapes = shapes_of([part for part in rest if part[0].isdigit()])
    make = lambda shape, t=dtype: torch.randn(shape, device=device, dtype=t, requires_grad=direction == "backward")
    if op == "linear":
        tensors = [make(shape) for shape in shapes]
        forward = lambda: F.linear(*tensors)
    elif op == "gelu":
        tensors = [make(shapes[0])]
        forward = lambda: F.gelu(*tensors)
    elif op == "layer_norm":
        tensors = [make(shape, torch.float32) for shape in shapes]
        forward = lambda: F.layer_norm(tensors[0], shapes[0][1:], tensors[1], tensors[2])
    elif op == "conv2d":
        x, weight = shapes[0], shapes[1]
        tensors = [make((x[0], x[3], x[1], x[2])), make(weight)]
        if device == "cuda":
            tensors = [t.detach().to(memory_format=torch.channels_last).requires_grad_(t.requires_grad) for t in tensors]
        return None if weight[2] == 1 else backward_or(lambda: F.conv2d(*tensors, padding=weight[2] // 2), tensors, direction)
    else:
        return None
    return backward_or(forward, tensors, direction)


def backward_or(forward, tensors, direction):
    if direction == "forward":
        def body():
            with torch.no_grad():
                forward()
        return body
    y = forward()
    dy = torch.randn_like(y)
    return lambda: torch.autograd.grad(y, tensors, dy, retain_graph=True)


def compare_ops(args):
    torch.set_num_threads(args.threads)
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    print(f"{'op':64} {'ours us':>10} {'PyTorch us':>11} {'ratio':>6}")
    for name, ours in our_rows(args):
        body = call_of(name, args.device, dtype)
        if body is None:
            continue
        theirs = microseconds(body, args.device)
        print(f"{name:64} {ours:10.1f} {theirs:11.1f} {theirs / ours:6.2f}", flush=True)


# --- steps: what is trained ---


class Case(NamedTuple):
    """A configuration of step_bench. Crops are square; sizes in pixels."""
    dim: int
    heads: int
    depth: int
    patch: int
    prototypes: int
    batch: int
    global_size: int
    local_size: int
    locals: int


CASES = {
    "cpu": {
        "vit_tiny/4": Case(192, 3, 12, 4, 4096, 64, 32, 16, 6),
        "vit_small/16": Case(384, 6, 12, 16, 65536, 4, 224, 96, 6),
        "micro/4": Case(128, 2, 6, 4, 4096, 64, 32, 16, 6),
    },
    "cuda": {
        "vit_tiny/16": Case(192, 3, 12, 16, 65536, 128, 224, 96, 10),
        "vit_small/16": Case(384, 6, 12, 16, 65536, 128, 224, 96, 10),
        "vit_small/8": Case(384, 6, 12, 8, 65536, 32, 224, 96, 10),
        "vit_base/16": Case(768, 12, 12, 16, 65536, 64, 224, 96, 10),
    },
}
STUDENT_TEMP, TEACHER_TEMP, CENTER_MOMENTUM, TEACHER_MOMENTUM, CLIP, DROP_PATH = 0.1, 0.04, 0.9, 0.996, 3.0, 0.1
COMPILE_SECONDS = 180  # a mode that needs longer to get ready is left out


class Block(nn.Module):
    def __init__(self, dim, heads, drop_path):
        super().__init__()
        self.heads, self.drop_path = heads, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def attention(self, x):
        images, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(images, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(images, tokens, dim))

    def add(self, x, branch):
        """x + branch, without the branch for a random share of the images."""
        if self.drop_path == 0:
            return x + branch
        scale = torch.empty(x.shape[0], 1, 1, device=x.device).bernoulli_(1 - self.drop_path) / (1 - self.drop_path)
        return torch.addcmul(x, branch, scale)

    def forward(self, x):
        x = self.add(x, self.attention(self.norm1(x)))
        return self.add(x, self.fc2(F.gelu(self.fc1(self.norm2(x)))))


class VisionTransformer(nn.Module):
    def __init__(self, case, drop_path):
        super().__init__()
        self.patch, self.grid = case.patch, case.global_size // case.patch
        self.embedding = nn.Linear(3 * case.patch**2, case.dim)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, case.dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + self.grid**2, case.dim))
        self.blocks = nn.ModuleList(Block(case.dim, case.heads, drop_path * i / (case.depth - 1)) for i in range(case.depth))
        self.norm = nn.LayerNorm(case.dim, eps=1e-6)

    def positions_of(self, side):
        """The position table for side × side patches."""
        if side == self.grid:
            return self.positions
        table = self.positions[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        table = F.interpolate(table, size=(side, side), mode="bicubic", align_corners=False)
        return torch.cat((self.positions[:, :1], table.flatten(2).transpose(1, 2)), dim=1)

    def forward(self, images):
        """images [n, 3, size, size] → the normed CLS tokens [n, dim]."""
        side = images.shape[-1] // self.patch
        # A matmul on cut-out patches, equal to a convolution: on the CPU twice as fast for patches of 4, slower for 16,
        # where it is well below one percent of the step.
        cut = images.view(-1, 3, side, self.patch, side, self.patch).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        x = torch.cat((self.cls.expand(len(images), -1, -1), self.embedding(cut)), dim=1) + self.positions_of(side)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])


class Network(nn.Module):
    """Backbone and DINO head. The gain of the weight-normed last layer is 1 and frozen."""
    def __init__(self, case, drop_path):
        super().__init__()
        self.backbone = VisionTransformer(case, drop_path)
        self.mlp = nn.Sequential(nn.Linear(case.dim, 2048), nn.GELU(), nn.Linear(2048, 2048), nn.GELU(), nn.Linear(2048, 256))
        self.prototypes = nn.Parameter(torch.empty(case.prototypes, 256).uniform_(-1 / 16, 1 / 16))
        for module in self.modules():
            if isinstance(module, nn.Linear) and module is not self.backbone.embedding:
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, *groups):
        """Crops, one tensor for each size → logits in f32. The head runs once, on the crops of all sizes."""
        features = torch.cat([self.backbone(crops) for crops in groups])
        unit = F.normalize(self.mlp(features), dim=-1)
        return F.linear(unit, F.normalize(self.prototypes, dim=-1)).float()


class Step:
    """One step of DINO: what train/step.cpp does, written as one would in PyTorch."""
    def __init__(self, case, device, precision, mode):
        self.case, self.device, self.bf16 = case, device, precision == "bf16"
        self.student, self.teacher = Network(case, DROP_PATH).to(device), Network(case, 0).to(device)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.parameters, self.averages = list(self.student.parameters()), list(self.teacher.parameters())
        self.center = torch.zeros(1, case.prototypes, device=device)
        matrices = [p for p in self.parameters if p.squeeze().ndim > 1]
        vectors = [p for p in self.parameters if p.squeeze().ndim <= 1]
        groups = [{"params": matrices, "weight_decay": 0.04}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-5, fused=True)
        crops = lambda count, size: torch.empty(count * case.batch, 3, size, size, device=device).uniform_(-2, 2)
        self.globals, self.locals = crops(2, case.global_size), crops(case.locals, case.local_size)
        if mode != "eager":
            tuned = "max-autotune" if mode == "autotune" else None
            self.targets_of = torch.compile(self.targets_of, dynamic=False, mode=tuned)
            self.loss_of = torch.compile(self.loss_of, dynamic=False, mode=tuned)

    def targets_of(self, crops, center):
        """The teacher's probabilities, and the mean of its logits for the center."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            logits = self.teacher(crops)
        return F.softmax((logits - center) / TEACHER_TEMP, dim=-1), logits.mean(0, keepdim=True)

    def loss_of(self, crops, more, targets):
        """Mean cross-entropy over the pairs of a teacher's and another student's crop: all pairs less those of one crop."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            logits = self.student(crops, more)
        batch, views = self.case.batch, 2 + self.case.locals
        logs = F.log_softmax(logits / STUDENT_TEMP, dim=-1)
        same = (targets * logs[:2 * batch]).sum()
        every = (targets.unflatten(0, (2, batch)).sum(0) * logs.unflatten(0, (views, batch)).sum(0)).sum()
        return (same - every) / (2 * (views - 1) * batch)

    def clip(self):
        """Clips each gradient by its own norm. On the CPU the norms can be looked at, and most gradients left alone."""
        grads = [p.grad for p in self.parameters]
        scales = (CLIP / (torch.stack(torch._foreach_norm(grads)) + 1e-6)).clamp_max(1)
        scaled = list(zip(grads, scales.unbind()))
        if self.device == "cpu":
            scaled = [(grad, scale) for grad, scale in scaled if scale < 1]
        if scaled:
            torch._foreach_mul_(*zip(*scaled))

    def __call__(self):
        with torch.no_grad():
            targets, mean = self.targets_of(self.globals, self.center)
        loss = self.loss_of(self.globals, self.locals, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():
            self.clip()
            self.optimizer.step()
            torch._foreach_lerp_(self.averages, self.parameters, 1 - TEACHER_MOMENTUM)
            self.center.lerp_(mean, 1 - CENTER_MOMENTUM)
        return loss.detach()


# --- steps: the measurement ---


def peak_mib(pid="self"):
    """The most memory that a process has held; 0 once it has ended."""
    with contextlib.suppress(OSError):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        return int(next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), 0)) / 1024
    return 0.0


def timed(step, seconds, device, least_steps=5):
    """Milliseconds of each step, at least 5 as in step_bench, and the last loss. On a GPU a step is started while the one
    before runs, as our program does, so that starting costs nothing."""
    def started():
        loss = step()
        event = torch.cuda.Event() if device == "cuda" else None
        if event:
            event.record()
        return loss, event

    before = started() if device == "cuda" else None
    marks = [time.perf_counter()]
    while len(marks) <= least_steps or marks[-1] - marks[0] < seconds:
        loss, event = started()
        if before:
            before[1].synchronize()
        before = (loss, event) if event else None
        marks.append(time.perf_counter())
    return [1e3 * (end - start) for start, end in zip(marks, marks[1:])], loss.item()


def faster_attention(args, case):
    """Which of PyTorch's attentions is faster on this CPU: "flash", its default, or "math", which wins for short crops in bf16."""
    def least(name):
        torch.backends.cuda.enable_flash_sdp(name == "flash")  # in spite of its name for the CPU too
        step = Step(CASES["cpu"][case], "cpu", args.precision, "eager")
        step()
        return min(timed(step, 0, "cpu", least_steps=3)[0])

    name = min("flash", "math", key=least)
    torch.backends.cuda.enable_flash_sdp(name == "flash")
    return name


def work(pipe, args, case, mode):
    """A process that runs steps of PyTorch in one mode: alive from round to round, so that it warms up and compiles once. For each
    number of seconds that it receives it runs steps and answers. Between rounds it waits, and idle threads of OpenMP sleep."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # compilers talk
    try:
        torch.set_num_threads(args.threads)
        attention = faster_attention(args, case) if args.device == "cpu" else "default"
        step = Step(CASES[args.device][case], args.device, args.precision, mode)
        for _ in range(3):
            step().item()
        with contextlib.suppress(OSError):  # or what the compiler needed would count as the step's memory
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        pipe.send({"attention": attention})
        while True:
            times, loss = timed(step, pipe.recv(), args.device)
            peak = torch.cuda.max_memory_allocated() / 2**20 if args.device == "cuda" else peak_mib()
            pipe.send({"times": times, "loss": loss, "peak": peak})
    except EOFError:  # the parent has ended
        pass
    except Exception as error:  # the parent says which mode failed and goes on
        pipe.send({"error": f"{type(error).__name__}: {error}".splitlines()[0]})


class Worker:
    def __init__(self, args, case, mode):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, args, case, mode))
        self.process.start()
        theirs.close()

    def answer(self, limit):
        """The next answer; one with `error` if none comes within `limit` seconds."""
        try:
            return self.pipe.recv() if self.pipe.poll(limit) else {"error": f"no answer after {limit} s"}
        except EOFError:
            return {"error": "the worker ended"}

    def run(self, seconds):
        self.pipe.send(seconds)
        return self.answer(600)

    def end(self):
        self.pipe.close()
        self.process.join(5)
        self.process.kill()  # if it still compiles
        self.process.join()


def our_steps(args, case):
    """One run of step_bench: its row for `case`, with the memory of the process."""
    command = [args.ours, "--json", "--device", args.device, "--precision", args.precision, "--threads", str(args.threads),
               "--seconds", str(args.seconds), "--filter", case]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, peak_mib(process.pid))
        time.sleep(0.1)
    output, errors = process.communicate()
    if process.returncode != 0:
        sys.exit(f"{args.ours} failed: {errors.decode().strip()}")
    row = next(row for row in json.loads(output)["steps"] if row["name"] == case)
    return row | {"peak": row["memory_mib"] if args.device == "cuda" else peak}


def compare_case(args, case):
    """All rounds of one configuration: {"ours": figures, mode: figures …}, and what comes of comparing them."""
    workers, figures, failed = {}, {"ours": {"rounds": []}}, {}
    try:
        for mode in args.modes:
            workers[mode] = Worker(args, case, mode)
            ready = workers[mode].answer(COMPILE_SECONDS)
            if "error" in ready:
                failed[mode] = ready["error"]
                workers.pop(mode).end()
            else:
                figures[mode] = ready | {"rounds": []}
        for _ in range(args.rounds):
            row = our_steps(args, case)
            figures["ours"]["rounds"].append({"least": row["step_ms_least"], "median": row["step_ms_median"], "peak": row["peak"]})
            for mode, worker in workers.items():
                ran = worker.run(args.seconds)
                if "error" in ran or not math.isfinite(ran["loss"]):
                    sys.exit(f"{case}, PyTorch {mode}: {ran.get('error', 'the loss is not finite')}")
                figures[mode]["rounds"].append(
                    {"least": min(ran["times"]), "median": statistics.median(ran["times"]), "peak": ran["peak"]})
    finally:
        for worker in workers.values():
            worker.end()
    for who in figures.values():
        who |= {"median_ms": statistics.median(one["median"] for one in who["rounds"]),
                "least_ms": min(one["least"] for one in who["rounds"]), "peak_mib": max(one["peak"] for one in who["rounds"])}
    result = {"name": case, "failed": failed} | figures
    if workers:
        ours, fastest = figures["ours"], min(workers, key=lambda mode: figures[mode]["median_ms"])
        theirs = figures[fastest]
        ratios = [b["median"] / a["median"] for a, b in zip(ours["rounds"], theirs["rounds"])]
        result |= {"fastest": fastest, "ratio": theirs["median_ms"] / ours["median_ms"], "ratio_low": min(ratios),
                   "ratio_high": max(ratios), "ratio_of_least": theirs["least_ms"] / ours["least_ms"]}
    return result


def print_case(result, modes):
    cells = []
    for who in ["ours", *modes]:
        one = result.get(who)
        cells.append(f"{one['median_ms']:9.1f} ms {one['peak_mib']:6.0f} MiB" if one else f"{'failed':>23}")
    ratio = "{ratio:.2f} ({ratio_low:.2f}…{ratio_high:.2f}), of least times {ratio_of_least:.2f}: {fastest}"
    print(f"{result['name']:13}", *cells, "", ratio.format(**result) if "ratio" in result else "", flush=True)
    for mode, error in result["failed"].items():
        print(f"  PyTorch {mode} failed: {error}", flush=True)


def compare_steps(args):
    cases = [name for name in CASES[args.device] if args.filter in name]
    if not cases:
        sys.exit(f"--filter {args.filter}: no configuration has that in its name")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # for the workers
    print(f"{'step':13} {'ours':>23}", *(f"{'PyTorch ' + mode:>23}" for mode in args.modes), " fastest PyTorch / ours (rounds)")
    results = []
    for case in cases:
        results.append(compare_case(args, case))
        print_case(results[-1], args.modes)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(machine(args) | {"steps": results}, indent=2) + "\n")


def machine(args):
    """What one must know to judge the figures."""
    cpu = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=pathlib.Path(__file__).parent)
    return {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "commit": commit.stdout.strip(),
            "command": sys.argv, "cpu": cpu, "cores": os.cpu_count(), "torch": torch.__version__,
            "gpu": torch.cuda.get_device_name() if args.device == "cuda" else None, "threads": args.threads,
            "precision": args.precision, "rounds": args.rounds, "seconds": args.seconds}


def compare_loaders(args):
    import vs_pytorch_loader  # needs torchvision and Pillow, as the others do not
    result = vs_pytorch_loader.compare(args)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(machine(args) | result, indent=2) + "\n")


def modes_of(text):
    modes = text.split(",")
    if not set(modes) <= {"eager", "compile", "autotune"}:
        raise argparse.ArgumentTypeError(f"{text}: known are eager, compile and autotune")
    return modes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    ops = commands.add_parser("ops", help="single operations")
    steps = commands.add_parser("steps", help="whole training steps")
    loader = commands.add_parser("loader", help="crops from image files, with torchvision and Pillow, one thread each")
    loader.set_defaults(device="cpu", precision="f32", threads=1)
    loader.add_argument("--data", required=True, help="a folder of JPEGs")
    for command in ops, steps, loader:
        command.add_argument("--ours", required=True, help="our bench: ops_bench or cuda_bench, step_bench, loader_bench")
    for command in ops, steps:
        command.add_argument("--filter", default="", help="only what has this in its name")
        command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
        command.add_argument("--precision", choices=["f32", "bf16"], default="f32")
        command.add_argument("--threads", type=int, default=torch.get_num_threads())
    for command in steps, loader:
        command.add_argument("--rounds", type=int, default=5)
        command.add_argument("--seconds", type=float, default=5, help="time of each program in each round (or a little more)")
        command.add_argument("--json", metavar="FILE", help="write all figures to this file")
    steps.add_argument("--modes", type=modes_of, default="eager,compile", help="of PyTorch: eager, compile, autotune (slow to start)")
    args = parser.parse_args()
    if not os.access(args.ours, os.X_OK):
        sys.exit(f"{args.ours} is missing; build it first: see bench/README.md")
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU")
    print(f"PyTorch {torch.__version__}, {args.device}, {args.precision}, {args.threads} threads")
    return {"ops": compare_ops, "steps": compare_steps, "loader": compare_loaders}[args.command](args)


if __name__ == "__main__":
    main()
