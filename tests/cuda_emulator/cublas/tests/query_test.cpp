#include <catch2/catch.hpp>

#include "cublas/tests/lt_case.h"

using test::LtCall;
using test::LtCase;

namespace {

struct Preference {
  Preference() { cublasLtMatmulPreferenceCreate(&preference); }
  ~Preference() { cublasLtMatmulPreferenceDestroy(preference); }
  template <class Value>
  void set(cublasLtMatmulPreferenceAttributes_t attribute, Value value) {
    REQUIRE(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value) ==
            CUBLAS_STATUS_SUCCESS);
  }
  cublasLtMatmulPreference_t preference;
};

struct Answer {
  cublasStatus_t status;
  int count = -1;
  cublasLtMatmulHeuristicResult_t results[4];
};

Answer ask(LtCall& call, const Preference& preference, int requested = 4) {
  Answer answer{};
  const auto& l = call.layouts;
  answer.status =
      cublasLtMatmulAlgoGetHeuristic(call.handle, call.matmul, l[0], l[1], l[2], l[3], preference.preference,
                                     requested, answer.results, &answer.count);
  return answer;
}

}  // namespace

TEST_CASE("the heuristic gives as many algorithms as wanted and possible, within the workspace") {
  LtCall call(LtCase{});
  Preference preference;
  REQUIRE(ask(call, preference).count == 1);
  REQUIRE(ask(call, preference).results[0].workspaceSize == 0);
  const std::uint64_t needed = 4 * 4 * 24 * 17;  // four f32 partial sums of D
  preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, needed - 1);
  REQUIRE(ask(call, preference).count == 1);
  preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, needed);
  const Answer both = ask(call, preference);
  REQUIRE(both.count == 2);
  REQUIRE(both.results[1].workspaceSize == needed);
  REQUIRE(both.results[1].state == CUBLAS_STATUS_SUCCESS);
  REQUIRE(ask(call, preference, 1).count == 1);
  preference.set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                 std::uint32_t{CUBLASLT_REDUCTION_SCHEME_INPLACE});
  REQUIRE(ask(call, preference).count == 1);
  REQUIRE(mock::take_reports().empty());
  REQUIRE(ask(call, preference, 0).status == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(mock::take_reports().size() == 1);
}

TEST_CASE("the heuristic says NOT_SUPPORTED, without a report, for what is not in the table of types") {
  LtCall call(LtCase{});
  LtCall::set(call.layouts[0], CUBLASLT_MATRIX_LAYOUT_TYPE, std::uint32_t{CUDA_R_16F});
  const Answer answer = ask(call, Preference{});
  REQUIRE(answer.status == CUBLAS_STATUS_NOT_SUPPORTED);
  REQUIRE(answer.count == 0);
  REQUIRE(mock::take_reports().empty());
}

TEST_CASE("an algorithm counts on the alignment that the heuristic was promised, up to 16 bytes") {
  LtCase c;
  c.input = c.output = CUDA_R_16BF;
  LtCall call(c);  // leading dimensions 24, 40 and 24: multiples of 16 bytes
  Preference preference;
  Answer answer = ask(call, preference);
  call.algo = &answer.results[0].algo;
  test::DeviceArray shifted(CUDA_R_16BF, std::vector<double>(call.a.size() + 1, 1.0));
  call.a_address = shifted.element(1);
  REQUIRE(call.call() == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(
      test::contains(mock::take_reports(), "is not a multiple of the 16 bytes that the algorithm counts on"));
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, std::uint32_t{2});
  answer = ask(call, preference);
  REQUIRE(call.call() == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  REQUIRE(mock::take_reports().empty());
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, std::uint32_t{1});
  REQUIRE(ask(call, preference).status == CUBLAS_STATUS_NOT_SUPPORTED);
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, std::uint32_t{24});
  REQUIRE(ask(call, preference).status == CUBLAS_STATUS_INVALID_VALUE);
  mock::take_reports();
}

TEST_CASE("cublasLtMatmul checks the algorithm and its workspace") {
  LtCase c;
  c.k = 400;  // long sums: the algorithm that splits them comes first
  LtCall call(c);
  Preference preference;
  preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{1} << 20);
  Answer answer = ask(call, preference);
  call.algo = &answer.results[0].algo;
  REQUIRE(call.call() == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(
      test::contains(mock::take_reports(), "the algorithm needs 6528 bytes of workspace, the call gives 0"));
  test::DeviceArray workspace(CUDA_R_32F, std::size_t{6528 / 4});
  call.workspace_bytes = workspace.bytes();
  REQUIRE(call.call() == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(test::contains(mock::take_reports(), "the workspace is null"));
  call.workspace = workspace.address();
  REQUIRE(call.call() == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  REQUIRE(mock::take_reports().empty());

  const std::int32_t splits = 1000, tile = 3;
  REQUIRE(cublasLtMatmulAlgoConfigSetAttribute(&answer.results[0].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                               &splits, 4) == 0);
  REQUIRE(call.call() == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(test::contains(mock::take_reports(), "the algorithm needs 1632000 bytes"));
  REQUIRE(cublasLtMatmulAlgoConfigSetAttribute(&answer.results[0].algo, CUBLASLT_ALGO_CONFIG_ID, &tile, 4) ==
          CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(test::contains(mock::take_reports(), "can only be read"));

  const cublasLtMatmulAlgo_t blank{};
  call.algo = &blank;
  REQUIRE(call.call() == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(test::contains(mock::take_reports(), "the algorithm at"));
  cublasLtMatmulAlgo_t other;
  REQUIRE(cublasLtMatmulAlgoInit(call.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16F, CUDA_R_16F,
                                 CUDA_R_16F, CUDA_R_16F, 0, &other) == 0);
  call.algo = &other;
  REQUIRE(call.call() == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(test::contains(
      mock::take_reports(),
      "the algorithm was made for compute type 68 and types 2, 2, 2, 2, the call has 68 and 0, 0, 0, 0"));
}

TEST_CASE("algorithms can be listed, initialised, checked and asked what they can do") {
  LtCall call(LtCase{});
  int ids[8], count = 0;
  REQUIRE(cublasLtMatmulAlgoGetIds(call.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F,
                                   CUDA_R_32F, CUDA_R_32F, 8, ids, &count) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(count == 2);
  for (int i = 0; i < count; ++i) {
    cublasLtMatmulAlgo_t algo;
    REQUIRE(cublasLtMatmulAlgoInit(call.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F,
                                   CUDA_R_32F, CUDA_R_32F, ids[i], &algo) == CUBLAS_STATUS_SUCCESS);
    cublasLtMatmulHeuristicResult_t result{};
    REQUIRE(cublasLtMatmulAlgoCheck(call.handle, call.matmul, call.layouts[0], call.layouts[1],
                                    call.layouts[2], call.layouts[3], &algo,
                                    &result) == CUBLAS_STATUS_SUCCESS);
    std::uint32_t alignment = 0, tiles[4];
    std::size_t written = 0;
    REQUIRE(cublasLtMatmulAlgoCapGetAttribute(&algo, CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_A_BYTES, &alignment, 4,
                                              &written) == 0);
    REQUIRE((alignment == 4 && written == 4));
    REQUIRE(cublasLtMatmulAlgoCapGetAttribute(&algo, CUBLASLT_ALGO_CAP_TILE_IDS, tiles, sizeof tiles,
                                              &written) == 0);
    REQUIRE(written == 4);
    call.algo = &algo;
    REQUIRE(call.call() == CUBLAS_STATUS_SUCCESS);
    mock::synchronize();
  }
  cublasLtMatmulAlgo_t algo;
  REQUIRE(cublasLtMatmulAlgoInit(call.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F,
                                 CUDA_R_32F, CUDA_R_32F, 99, &algo) == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(mock::take_reports().size() == 1);
}

TEST_CASE(
    "attributes of descriptors keep what was set, and refuse unknown ids, null buffers and wrong sizes") {
  LtCall call(LtCase{});
  for (int id = 0; id <= CUBLASLT_MATMUL_DESC_EMULATION_DESCRIPTOR; ++id) {
    const auto attribute = static_cast<cublasLtMatmulDescAttributes_t>(id);
    std::size_t bytes = 0;
    unsigned char value[8], back[8] = {};
    std::fill_n(value, 8, static_cast<unsigned char>(id + 1));
    const cublasStatus_t known = cublasLtMatmulDescGetAttribute(call.matmul, attribute, nullptr, 0, &bytes);
    const bool hole = id == 9 || id == 16 || (id >= 27 && id <= 30);  // ids that the header skips
    REQUIRE(known == (hole ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS));
    if (hole) continue;
    CAPTURE(id);
    REQUIRE(cublasLtMatmulDescSetAttribute(call.matmul, attribute, value, bytes) == CUBLAS_STATUS_SUCCESS);
    REQUIRE(cublasLtMatmulDescGetAttribute(call.matmul, attribute, back, bytes, nullptr) ==
            CUBLAS_STATUS_SUCCESS);
    REQUIRE(std::equal(value, value + bytes, back));
    REQUIRE(cublasLtMatmulDescSetAttribute(call.matmul, attribute, value, bytes + 1) ==
            CUBLAS_STATUS_INVALID_VALUE);
    REQUIRE(cublasLtMatmulDescSetAttribute(call.matmul, attribute, nullptr, bytes) ==
            CUBLAS_STATUS_INVALID_VALUE);
    REQUIRE(cublasLtMatmulDescGetAttribute(call.matmul, attribute, back, bytes - 1, nullptr) ==
            CUBLAS_STATUS_INVALID_VALUE);
    REQUIRE(cublasLtMatmulDescGetAttribute(call.matmul, attribute, back, 0, nullptr) ==
            CUBLAS_STATUS_INVALID_VALUE);
  }
  cublasLtMatmulDescAttributes_t unknown;
  std::memset(&unknown, 1, sizeof unknown);  // C programs can
  const std::int32_t value = 0;
  cublasLtMatmulDescSetAttribute(call.matmul, unknown, &value, 4);
  REQUIRE(
      test::contains(mock::take_reports(), "cublasLtMatmulDescSetAttribute: there is no attribute 16843009"));
  cublasLtMatmulDescOpaque_t place;
  REQUIRE(cublasLtMatmulDescInit(&place, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(cublasLtMatmulDescInit_internal(&place, 8, CUBLAS_COMPUTE_32F, CUDA_R_32F) ==
          CUBLAS_STATUS_ALLOC_FAILED);
  mock::take_reports();
}

TEST_CASE("versions, properties and names of statuses are those of the toolkit") {
  int major = 0;
  REQUIRE(cublasLtGetProperty(MAJOR_VERSION, &major) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(major == 13);
  REQUIRE(cublasLtGetVersion() == CUBLAS_VERSION);
  REQUIRE(std::string(cublasLtGetStatusName(CUBLAS_STATUS_NOT_SUPPORTED)) == "CUBLAS_STATUS_NOT_SUPPORTED");
  REQUIRE(cublasLtLoggerSetLevel(9) == CUBLAS_STATUS_INVALID_VALUE);
  mock::take_reports();
}
