#include <bit>
#include <catch2/catch.hpp>
#include <cstring>
#include <string>

#include "ptx/module.h"

using emulator::ptx::Function;
using emulator::ptx::Instruction;
using emulator::ptx::Module;
using emulator::ptx::Operand;
using emulator::ptx::parse;
using emulator::ptx::Space;
using emulator::ptx::Type;
using emulator::ptx::Variable;
using Kind = emulator::ptx::Operand::Kind;

namespace {

/// Three lines before the text, so that its first line is line 4.
const std::string kHeader = ".version 9.0\n.target sm_90a\n.address_size 64\n";

Module parse_module(const std::string& text) { return parse(kHeader + text); }

/// The module of one kernel; its body starts on line 4.
Module parse_kernel(const std::string& body) {
  return parse_module(".visible .entry k(.param .u64 p){" + body + "}");
}

/// The operand `index` of the first instruction of a kernel.
Operand first_operand(const std::string& body, std::size_t index) {
  return parse_kernel(".reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .pred %p<9>; .shared .b32 x[4];" + body)
      .functions[0]
      .instructions[0]
      .operands.at(index);
}

const Variable& variable_of(const Module& module, const std::string& name) {
  return module.variables[static_cast<std::size_t>(module.variable_index.at(name))];
}

std::uint32_t word_at(const Variable& variable, std::size_t offset) {
  std::uint32_t word = 0;
  REQUIRE(offset + sizeof(word) <= variable.image.size());
  std::memcpy(&word, &variable.image[offset], sizeof(word));
  return word;
}

}  // namespace

TEST_CASE("the header of a module is read") {
  const Module module = parse(
      ".version 9.0\n.target sm_90a, texmode_independent, debug\n.address_size 64\n"
      ".file 1 \"/tmp/a.cu\", 1700000000, 4096\n.section .debug_str { $L0: .b8 95,0 }\n"
      ".extern .func (.param .b32 func_retval0) vprintf (.param .b64 a, .param .b64 b) ;");
  CHECK(module.version == 90);
  CHECK(module.target == 90);
  CHECK(module.target_name == "sm_90a");
  REQUIRE(module.files.size() == 2);
  CHECK(module.files[1] == "/tmp/a.cu");
  CHECK(module.functions[0].is_declaration);
  CHECK(module.functions[0].results.size() == 1);
}

TEST_CASE("kernel parameters are packed by their alignment") {
  const Module module = parse_module(
      ".entry k(.param .u64 a, .param .u64 .ptr .shared .align 1 b, .param .u8 c, .param .u32 d, "
      ".param .align 8 .b8 e[20], .param .u8 f){ret;}");
  const Function& kernel = module.functions[0];
  const std::vector<std::uint64_t> expected = {0, 8, 16, 20, 24, 44};
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(kernel.params[i].offset == expected[i]);
  CHECK(kernel.param_bytes == 45);
  CHECK(kernel.params[4].bytes == 20);
  CHECK(kernel.params[4].align == 8);
}

TEST_CASE("performance directives are kept") {
  const Function kernel =
      parse_module(
          ".entry k() .maxntid 64, 2 .reqntid 32 .minnctapersm 3 .maxnreg 40 .maxnctapersm 9\n"
          ".reqnctapercluster 2,1,1 .explicitcluster .maxclusterrank 4 .blocksareclusters\n"
          ".noreturn .pragma \"nounroll\"; {exit;}")
          .functions[0];
  CHECK(kernel.max_threads[0] == 64);
  CHECK(kernel.max_threads[1] == 2);
  CHECK(kernel.max_threads[2] == 1);
  CHECK(kernel.required_threads[0] == 32);
  CHECK(kernel.min_blocks == 3);
  CHECK(kernel.max_registers == 40);
  CHECK(kernel.cluster[0] == 2);
  CHECK(kernel.explicit_cluster);
  CHECK(kernel.blocks_are_clusters);
}

TEST_CASE("opcodes are split at dots and keep double colons") {
  const Module module = parse_kernel(
      ".reg .b32 %r<9>; .reg .b64 %rd<3>; ld.global.L1::no_allocate.L2::cache_hint.v2.f32 {%r1, %r2}, "
      "[%rd1], %rd2;\n"
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r1,%r2,%r3,%r4}, {%r1,%r2,%r3,%r4}, {%r5,%r6}, "
      "{_, 0, 0f00000000, %r1};");
  const Instruction& load = module.functions[0].instructions[0];
  CHECK(load.opcode == "ld");
  CHECK(load.modifiers ==
        std::vector<std::string>{"global", "L1::no_allocate", "L2::cache_hint", "v2", "f32"});
  CHECK(load.text() == "ld.global.L1::no_allocate.L2::cache_hint.v2.f32");
  CHECK(load.operands.size() == 3);
  const Instruction& mma = module.functions[0].instructions[1];
  CHECK(mma.modifiers[2] == "m16n8k16");
  CHECK(mma.operands[3].elements[0].kind == Kind::sink);
  CHECK(mma.operands[3].elements[1].kind == Kind::integer);
  CHECK(mma.operands[3].elements[2].kind == Kind::floating);
  CHECK(mma.line == 5);
}

TEST_CASE("literals have the bits that are written") {
  CHECK(first_operand("mov.b32 %r1, 0x1F;", 1).bits == 31);
  CHECK(first_operand("mov.b32 %r1, 0X1fU;", 1).bits == 31);
  CHECK(first_operand("mov.b32 %r1, 017;", 1).bits == 15);
  CHECK(first_operand("mov.b32 %r1, 0b101;", 1).bits == 5);
  CHECK(first_operand("mov.b32 %r1, 0;", 1).bits == 0);
  CHECK(first_operand("mov.b32 %r1, 42U;", 1).bits == 42);
  CHECK(first_operand("mov.b32 %r1, -4;", 1).bits == static_cast<std::uint64_t>(-4));
  CHECK(first_operand("mov.b64 %rd1, 0xFFFFFFFFFFFFFFFF;", 1).bits == UINT64_MAX);
  CHECK(first_operand("mov.b32 %r1, WARP_SZ;", 1).bits == 32);
  const Operand single = first_operand("mov.f32 %r1, 0f3F800000;", 1);
  CHECK((single.kind == Kind::floating && single.width == 4 && single.bits == 0x3F800000));
  CHECK(first_operand("mov.f32 %r1, -0f3F800000;", 1).bits == 0xBF800000);
  const Operand twice = first_operand("mov.f64 %rd1, 0d3FF0000000000000;", 1);
  CHECK((twice.width == 8 && twice.bits == 0x3FF0000000000000));
  const Operand decimal = first_operand("mov.f64 %rd1, -1.5e-1;", 1);
  CHECK((decimal.kind == Kind::floating && decimal.bits == std::bit_cast<std::uint64_t>(-0.15)));
}

TEST_CASE("addresses are a base and an offset") {
  const Operand both = first_operand("ld.b32 %r1, [%rd1+-4];", 1);
  CHECK((both.kind == Kind::address && both.index == 10 && both.offset == -4));
  CHECK(first_operand("ld.b32 %r1, [%rd1+0x10];", 1).offset == 16);
  CHECK(first_operand("ld.b32 %r1, [%rd1-(4+4)+1];", 1).offset == -7);
  CHECK(first_operand("ld.b32 %r1, [%rd1];", 1).offset == 0);
  const Operand absolute = first_operand("ld.b32 %r1, [12];", 1);
  CHECK((absolute.index == -1 && absolute.name.empty() && absolute.offset == 12));
  const Operand variable = first_operand("ld.b32 %r1, [x+8];", 1);
  CHECK((variable.index == -1 && variable.name == "x" && variable.offset == 8));
  CHECK(first_operand("ld.param.b64 %rd1, [p];", 1).name == "p");
}

TEST_CASE("operands of every kind are told apart") {
  const Operand pair = first_operand("setp.lt.s32 %p1|%p2, %r1, 4;", 0);
  REQUIRE(pair.kind == Kind::pair);
  CHECK(pair.elements[0].index == 19);
  CHECK(pair.elements[1].index == 20);
  const Operand sink = first_operand("elect.sync _|%p1, -1;", 0);
  CHECK((sink.kind == Kind::pair && sink.elements[0].kind == Kind::sink));
  const Operand negated = first_operand("selp.b32 %r1, 1, 2, !%p1;", 3);
  CHECK((negated.kind == Kind::reg && negated.negated));
  const Operand variable = first_operand("mov.u64 %rd1, x+8;", 1);
  CHECK((variable.kind == Kind::variable && variable.name == "x" && variable.offset == 8));
  const Operand parameter = first_operand("mov.b64 %rd1, p;", 1);
  CHECK((parameter.kind == Kind::variable && parameter.name == "p"));
  const Operand vector = first_operand("mov.b64 {%r1, %r2}, %rd1;", 0);
  CHECK((vector.kind == Kind::vector && vector.elements.size() == 2));
}

TEST_CASE("names with a percent sign that are no registers are special registers") {
  for (const char* name :
       {"%tid.x", "%ctaid.y", "%laneid", "%lanemask_lt", "%clock64", "%globaltimer", "%envreg1",
        "%dynamic_smem_size", "%reserved_smem_offset_1", "%cluster_ctaid.x", "%r99"}) {
    const Operand operand = first_operand(std::string("mov.u32 %r1, ") + name + ";", 1);
    CHECK(operand.kind == Kind::special);
    CHECK(operand.name == name);
  }
}

TEST_CASE("register ranges hold the numbers below their bound, whatever digits end their prefix") {
  const Module module = parse_kernel(
      ".reg .b32 %r<5>; .reg .b64 %r10<3>; .reg .pred p, q; .reg .b32 x1; add %r4, %r102, x1; mov %r5, "
      "%r04;");
  const Function& kernel = module.functions[0];
  REQUIRE(kernel.registers.size() == 11);
  CHECK(kernel.registers[7].name == "%r102");
  CHECK(kernel.registers[7].type == Type::b64);
  CHECK(kernel.registers[8].type == Type::pred);
  const Instruction& add = kernel.instructions[0];
  CHECK(add.operands[0].index == 4);
  CHECK(add.operands[1].index == 7);
  CHECK(add.operands[2].index == 10);
  CHECK(kernel.instructions[1].operands[0].kind == Kind::special);
  CHECK(kernel.instructions[1].operands[1].kind == Kind::special);
}

TEST_CASE("registers and labels of inline assembly may repeat in every scope") {
  const std::string wait = "{ .reg .pred p; LAB_WAIT: try p, [%r1]; @p bra DONE; bra LAB_WAIT; DONE: }";
  const Function kernel = parse_kernel(".reg .b32 %r<2>;" + wait + wait + "DONE: bra DONE;").functions[0];
  REQUIRE(kernel.instructions.size() == 7);
  CHECK(kernel.instructions[1].operands[0].index == 3);
  CHECK(kernel.instructions[2].operands[0].index == 0);
  CHECK(kernel.instructions[4].operands[0].index == 6);
  CHECK(kernel.instructions[5].operands[0].index == 3);
  CHECK(kernel.instructions[6].operands[0].index == 6);
  CHECK(kernel.instructions[1].guard == 2);
  CHECK(kernel.instructions[4].guard == 3);
  CHECK_FALSE(kernel.instructions[1].guard_negated);
}

TEST_CASE("a label later in its own scope comes before one of the scope around") {
  const Function kernel =
      parse_kernel(".reg .b32 a; L: mov.b32 a, 1; { bra L; mov.b32 a, 2; L: mov.b32 a, 3; } { bra L; } ret;")
          .functions[0];
  CHECK(kernel.instructions[1].operands[0].index == 3);
  CHECK(kernel.instructions[4].operands[0].index == 0);
}

TEST_CASE("a branch goes to a label even if another thing of the module has its name") {
  const Module module = parse_module(".global .b32 L;\n.entry k() { bra L; exit; { L: exit; } L: exit; }");
  const Operand& target = module.functions[0].instructions[0].operands[0];
  CHECK((target.kind == Kind::label && target.index == 3));
}

TEST_CASE("falling off the end of a function returns") {
  const Function kernel = parse_kernel(".reg .pred p; @p bra END; trap; END: \n").functions[0];
  REQUIRE(kernel.instructions.size() == 3);
  CHECK(kernel.instructions[0].operands[0].index == 2);
  CHECK(kernel.instructions[2].opcode == "ret");
  CHECK(kernel.instructions[2].line == 5);
  CHECK(parse_kernel("ret;").functions[0].instructions.size() == 1);
  CHECK(parse_kernel("").functions[0].instructions.size() == 1);
}

TEST_CASE("variables that repeat between scopes get unique names") {
  const std::string call =
      "{ .reg .b32 temp_param_reg; .param .b64 param0; st.param.b64 [param0+0], 1; call.uni f, (param0); }";
  const Module module =
      parse_module(".func f(.param .b64 a) { ret; }\n.entry k() {" + call + call + "ret; }");
  const Function& kernel = module.functions[1];
  REQUIRE(kernel.variables.size() == 2);
  CHECK(kernel.variables[0].name == "param0");
  CHECK(kernel.variables[1].name != "param0");
  CHECK(kernel.instructions[2].operands[0].name == kernel.variables[1].name);
  CHECK(kernel.instructions[3].operands[2].elements[0].name == kernel.variables[1].name);
  CHECK(kernel.variables[1].space == Space::param);
}

TEST_CASE("a variable of a function that hides a parameter or a module's variable is renamed") {
  const Module module = parse_module(
      ".global .b32 g;\n.entry k(.param .b32 p) { .reg .b64 a; { .local .b32 p, g; mov.u64 a, p; mov.u64 a, "
      "g; }\n"
      "mov.u64 a, p; mov.u64 a, g; }");
  const Function& kernel = module.functions[0];
  CHECK(kernel.instructions[0].operands[1].name == kernel.variables[0].name);
  CHECK(kernel.instructions[1].operands[1].name == kernel.variables[1].name);
  CHECK(kernel.variables[0].name != "p");
  CHECK(kernel.variables[1].name != "g");
  CHECK(kernel.instructions[2].operands[1].name == "p");
  CHECK(kernel.instructions[3].operands[1].name == "g");
}

TEST_CASE("calls always have results, callee and arguments") {
  const Module module = parse_module(
      ".func (.param .b32 r) f(.param .b32 a) { st.param.b32 [r+0], 1; ret; }\n.func g() .noreturn;\n"
      ".entry k() { .reg .b64 %rd<2>; .param .b32 x; .param .b32 y; P : .callprototype (.param .b32 _) _ "
      "(.param .b32 _);\n"
      "call (x), f, (y); call.uni g; call (x), %rd1, (y), P; call g, (); Q: .callprototype _ (); call %rd1, "
      "Q; }");
  const std::vector<Instruction>& calls = module.functions[2].instructions;
  CHECK(calls[0].operands.size() == 3);
  CHECK(calls[0].operands[0].elements[0].name == "x");
  CHECK((calls[0].operands[1].kind == Kind::function && calls[0].operands[1].name == "f"));
  CHECK(calls[0].operands[2].elements[0].name == "y");
  REQUIRE(calls[1].operands.size() == 3);
  CHECK((calls[1].operands[0].kind == Kind::list && calls[1].operands[0].elements.empty()));
  CHECK((calls[1].operands[2].kind == Kind::list && calls[1].operands[2].elements.empty()));
  REQUIRE(calls[2].operands.size() == 4);
  CHECK(calls[2].operands[1].kind == Kind::reg);
  CHECK((calls[2].operands[3].kind == Kind::table &&
         module.functions[2].tables.contains(calls[2].operands[3].name)));
  CHECK(calls[3].operands.size() == 3);
  REQUIRE(calls[4].operands.size() == 4);
  CHECK(calls[4].operands[3].name == "Q");
  CHECK(module.functions[0].instructions[0].operands[0].name == "r");
}

TEST_CASE("branch tables hold instruction indices") {
  const Module module = parse_kernel(
      ".reg .b32 %r<2>; T: .branchtargets A, B, A; brx.idx.uni %r1, T; A: ret; B: exit; {T: .branchtargets "
      "B; brx.idx %r0, T;}");
  const Function& kernel = module.functions[0];
  const Operand& table = kernel.instructions[0].operands[1];
  REQUIRE(table.kind == Kind::table);
  CHECK(kernel.tables.at(table.name).labels == std::vector<int>{1, 2, 1});
  CHECK(kernel.tables.at(kernel.instructions[3].operands[1].name).labels == std::vector<int>{2});
}

TEST_CASE("functions may be used before they are declared") {
  const Module module = parse_module(
      ".global .u64 table[2] = {g, g};\n.entry k() { .reg .b64 a; mov.u64 a, g; C: .calltargets g, g; call "
      "a, (), C; ret; }\n"
      ".func g() { ret; }");
  const Function& kernel = module.functions[0];
  CHECK(kernel.instructions[0].operands[1].kind == Kind::function);
  CHECK(kernel.tables.at("C").functions == std::vector<std::string>{"g", "g"});
  CHECK(variable_of(module, "table").relocations[1].symbol == "g");
}

TEST_CASE("a definition replaces the declaration before it") {
  const Module module = parse_module(
      ".func f(.param .b32 a);\n.visible .func f(.param .b32 b) { ret; }\n.func f(.param .b32 c);");
  REQUIRE(module.functions.size() == 1);
  CHECK_FALSE(module.functions[0].is_declaration);
  CHECK(module.functions[0].params[0].name == "b");
}

TEST_CASE("initialisers become images and relocations") {
  const Module module = parse_module(R"(
.global .align 1 .b8 $str[4] = {104, 101, 121};
.global .attribute(.managed) .align 4 .u32 managed = 7;
.const .f32 floats[3] = {0f3F800000, -1.5, 2.0};
.global .b32 matrix[3][2] = {{1, 2}, {-3}};
.global .v4 .u32 vectors[2] = {{1, 2, 3, 4}, {5, 6, 7, 8}};
.global .s16 counted[] = {1, -2, 3};
.global .u64 pointers[5] = {generic($str)+1, $str-2, 3, k, generic($str+4)};
.visible .global .align 8 .b8 empty[100], other;
.extern .shared .align 128 .b8 dynamic[];
.weak .global .u32 narrow = matrix;
.common .global .f64 d;
.entry k() { ret; })");
  CHECK(variable_of(module, "$str").image == std::vector<std::uint8_t>{104, 101, 121});
  CHECK(variable_of(module, "$str").bytes == 4);
  CHECK(word_at(variable_of(module, "managed"), 0) == 7);
  CHECK_FALSE(variable_of(module, "managed").is_array);
  CHECK(word_at(variable_of(module, "floats"), 4) == 0xBFC00000);
  CHECK(variable_of(module, "floats").space == Space::constant);
  const Variable& matrix = variable_of(module, "matrix");
  CHECK(matrix.bytes == 24);
  CHECK(matrix.image.size() == 12);
  CHECK(word_at(matrix, 8) == static_cast<std::uint32_t>(-3));
  const Variable& vectors = variable_of(module, "vectors");
  CHECK((vectors.bytes == 32 && vectors.align == 16 && word_at(vectors, 16) == 5));
  CHECK(variable_of(module, "counted").bytes == 6);
  const auto& relocations = variable_of(module, "pointers").relocations;
  REQUIRE(relocations.size() == 4);
  CHECK((relocations[0].generic && relocations[0].addend == 1 && relocations[0].offset == 0));
  CHECK((!relocations[1].generic && relocations[1].addend == -2 && relocations[1].offset == 8));
  CHECK((relocations[2].symbol == "k" && relocations[2].offset == 24 && relocations[2].bytes == 8));
  CHECK((relocations[3].generic && relocations[3].addend == 4));
  CHECK(variable_of(module, "narrow").relocations[0].bytes == 4);
  CHECK(variable_of(module, "other").bytes == 1);
  CHECK(variable_of(module, "empty").image.empty());
  const Variable& dynamic = variable_of(module, "dynamic");
  CHECK((dynamic.is_extern && dynamic.is_array && dynamic.bytes == 0 && dynamic.align == 128));
}

TEST_CASE("source lines come from .loc, of inlined code its own") {
  const Module module = parse_kernel(
      ".reg .b32 a; mov.b32 a, 0; .loc 3 12 5\n mov.b32 a, 1;\n"
      ".loc 2 40 1, function_name $L__info_string0+4, inlined_at 3 12 5\n mov.b32 a, 2; ret;");
  const std::vector<Instruction>& all = module.functions[0].instructions;
  CHECK((all[0].file == 0 && all[0].source_line == 0));
  CHECK((all[1].file == 3 && all[1].source_line == 12));
  CHECK((all[2].file == 2 && all[2].source_line == 40 && all[2].line == 7));
}

TEST_CASE("code that was inlined from a header of the toolkit has the line of the code that calls it") {
  const Module module = emulator::ptx::parse(
      ".version 9.0\n.target sm_90\n.address_size 64\n.entry k() { .reg .b32 a; .loc 1 7 3\n mov.b32 a, 0;\n"
      ".loc 2 40 1, function_name $L__info_string0, inlined_at 1 7 3\n mov.b32 a, 1;\n"
      ".loc 2 99 1, function_name $L__info_string1, inlined_at 2 40 1\n mov.b32 a, 2;\n"
      ".loc 3 5 1, function_name $L__info_string2, inlined_at 1 7 3\n mov.b32 a, 3;\n"
      ".loc 2 60 1\n ret; }\n"
      ".file 1 \"/home/me/k.cu\"\n.file 2 \"/usr/local/cuda/include/crt/mma.hpp\"\n.file 3 "
      "\"/home/me/own.h\"\n");
  const std::vector<Instruction>& all = module.functions[0].instructions;
  const auto is_at = [&](int i, int file, int line) {
    return all[static_cast<std::size_t>(i)].file == file &&
           all[static_cast<std::size_t>(i)].source_line == line;
  };
  CHECK(is_at(0, 1, 7));
  CHECK(is_at(1, 1, 7));
  CHECK(is_at(2, 1, 7));
  CHECK(is_at(3, 3, 5));   // a header of the user's own
  CHECK(is_at(4, 2, 60));  // nobody is known to have called it
}

TEST_CASE("types have names and widths") {
  for (const char* name : {"pred", "b8",  "b16", "b32", "b64",   "b128", "u8",     "u16",  "u32", "u64", "s8",
                           "s16",  "s32", "s64", "f16", "f16x2", "bf16", "bf16x2", "tf32", "f32", "f64"}) {
    REQUIRE(emulator::ptx::type_named(name));
    CHECK(std::string(emulator::ptx::name_of(*emulator::ptx::type_named(name))) == name);
  }
  CHECK_FALSE(emulator::ptx::type_named("f8"));
  CHECK_FALSE(emulator::ptx::type_named("none"));
  CHECK(emulator::ptx::bytes_of(Type::b128) == 16);
  CHECK(emulator::ptx::bytes_of(Type::bf16x2) == 4);
  CHECK(emulator::ptx::bytes_of(Type::pred) == 0);
}
