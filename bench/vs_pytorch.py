#!/usr/bin/env python3
"""Times PyTorch on the shapes of our benches, side by side with them. For development: nothing in the product needs Python.

  bench/vs_pytorch.py --ours build/release/bench/ops_bench --device cpu [--filter linear]
  bench/vs_pytorch.py --ours build/cuda-release/bench/cuda_bench --device cuda --precision bf16

Prints one line per op that both have: our time, PyTorch's, and PyTorch's over ours. Both run on this machine, one after the other.
"""
import argparse
import json
import subprocess
import sys
import time

import torch
import torch.nn.functional as F


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True, help="our bench: ops_bench for the CPU, cuda_bench for a GPU")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--filter", default="", help="only what has this in its name")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU")
    torch.set_num_threads(args.threads)
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    print(f"PyTorch {torch.__version__}, {args.device}, {args.precision}, {args.threads} threads")
    print(f"{'op':64} {'ours us':>10} {'PyTorch us':>11} {'ratio':>6}")
    for name, ours in our_rows(args):
        body = call_of(name, args.device, dtype)
        if body is None:
            continue
        theirs = microseconds(body, args.device)
        print(f"{name:64} {ours:10.1f} {theirs:11.1f} {theirs / ours:6.2f}", flush=True)


if __name__ == "__main__":
    main()
