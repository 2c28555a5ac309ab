// How fast kernels run on the emulator: thread instructions per second and core, and FLOP per second of fused
// multiply-adds and tensor cores. The number of instructions is taken from a first run of this program, in a
// process of its own, with counters on.
//   speed_bench            (LD_LIBRARY_PATH names the emulator's libraries; CUDA_EMULATOR_THREADS, _CHECK and
//   _COUNTERS as wanted)
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "kernels.cuh"

namespace {

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "speed_bench: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

// Time that all threads of the process spent on cores: rates are per core, whatever else the machine does.
double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

struct Case {
  const char* name;
  double flops;  // of tensor cores or fused multiply-adds; 0: not told
  std::function<void()> run;
};

constexpr int kElements = 1 << 20, kSide = 256;

std::vector<Case> cases() {
  float *a, *b, *c;
  int* index;
  for (float** p : {&a, &b, &c}) {
    check(cudaMalloc(p, kElements * sizeof(float)));
    check(cudaMemset(*p, 0, kElements * sizeof(float)));
  }
  check(cudaMalloc(&index, kElements * sizeof(int)));
  std::vector<int> scattered(kElements);
  for (int i = 0; i < kElements; ++i)
    scattered[i] = static_cast<int>((static_cast<unsigned>(i) * 2654435761u) % kElements);
  check(cudaMemcpy(index, scattered.data(), kElements * sizeof(int), cudaMemcpyHostToDevice));
  const dim3 tiles(kSide / 32, kSide / 32), threads(32, 32);
  return {
      {"fma_chain", 2.0 * 64 * 256 * 64 * 32, [=] { bench::fma_chain<<<64, 256>>>(a, 64); }},
      {"integer_mix", 0, [=] { bench::integer_mix<<<64, 256>>>(reinterpret_cast<std::uint32_t*>(a), 64); }},
      {"exponentials", 0, [=] { bench::exponentials<<<64, 256>>>(a, 64); }},
      {"vector_add", 0, [=] { bench::vector_add<<<1024, 256>>>(a, b, c, kElements); }},
      {"vector_add4", 0,
       [=] {
         bench::vector_add4<<<256, 256>>>(reinterpret_cast<float4*>(a), reinterpret_cast<float4*>(b),
                                          reinterpret_cast<float4*>(c), kElements / 4);
       }},
      {"gather", 0, [=] { bench::gather<<<1024, 256>>>(a, index, c, kElements); }},
      {"block_reduce", 0, [=] { bench::block_reduce<<<256, 256>>>(a, c, kElements); }},
      {"tiled_matmul", 2.0 * kSide * kSide * kSide,
       [=] { bench::tiled_matmul<<<tiles, threads>>>(a, b, c, kSide); }},
      {"tensor_products", 4096.0 * 64 * 8 * 64 * 8, [=] { bench::tensor_products<<<64, 256>>>(a, 64); }},
      {"tensor_matmul", 2.0 * 512 * 512 * 512,
       [=] {
         bench::tensor_matmul<<<dim3(8, 8), 128>>>(reinterpret_cast<__nv_bfloat16*>(a),
                                                   reinterpret_cast<__nv_bfloat16*>(b), c, 512);
       }},
  };
}

// Thread instructions of one launch of each kernel, from the emulator's own counters.
std::map<std::string, double> count_instructions(const char* program) {
  const std::string file = "/tmp/speed_bench." + std::to_string(getpid()) + ".json";
  const std::string command = "CUDA_EMULATOR_COUNTERS=" + file + " '" + program + "' --count";
  if (std::system(command.c_str()) != 0) std::exit(1);
  std::stringstream text;
  text << std::ifstream(file).rdbuf();
  std::remove(file.c_str());
  std::map<std::string, double> counts;
  const std::string json = text.str();
  for (std::size_t at = 0; (at = json.find("bench::", at)) != std::string::npos; at += 7) {
    const std::string name = json.substr(at + 7, json.find('(', at) - at - 7);
    const std::string key = "\"thread_instructions\":";
    const std::size_t value = json.find(key, at);
    if (value != std::string::npos) counts[name] = std::atof(json.c_str() + value + key.size());
  }
  return counts;
}

}  // namespace

int main(int argc, char** argv) {
  const bool only_count = argc > 1;
  const auto counts = only_count ? std::map<std::string, double>() : count_instructions(argv[0]);
  if (!only_count) std::printf("%-16s %12s %14s %10s\n", "kernel", "core ms", "G thread-ins/s", "GFLOP/s");
  for (const Case& c : cases()) {
    double best = 1e30;
    for (int repeat = 0; repeat < (only_count ? 1 : 5); ++repeat) {
      const double start = cpu_seconds();
      c.run();
      check(cudaDeviceSynchronize());
      best = std::min(best, cpu_seconds() - start);
    }
    if (only_count) continue;
    const auto found = counts.find(c.name);
    std::printf("%-16s %12.3f %14.2f", c.name, best * 1e3,
                found == counts.end() ? 0.0 : found->second / best * 1e-9);
    if (c.flops != 0) std::printf(" %10.1f", c.flops / best * 1e-9);
    std::printf("\n");
  }
  return 0;
}
