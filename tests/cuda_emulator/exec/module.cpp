#include <cxxabi.h>

#include <algorithm>
#include <set>

#include "exec/kernel.h"

namespace emulator {
namespace {

using ptx::Function;
using ptx::Operand;
using ptx::Variable;

std::uint64_t align_up(std::uint64_t value, std::uint64_t align) {
  return (value + align - 1) / align * align;
}

std::string demangle(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string result = status == 0 && text != nullptr ? text : name;
  std::free(text);
  return result;
}

void names_in(const Operand& operand, std::set<std::string>& variables, std::set<std::string>& functions) {
  if (operand.kind == Operand::Kind::function)
    functions.insert(operand.name);
  else if (operand.kind == Operand::Kind::variable || operand.kind == Operand::Kind::address)
    variables.insert(operand.name);
  for (const Operand& element : operand.elements) names_in(element, variables, functions);
}

// Everything that a kernel may run or touch.
struct Reach {
  std::vector<int> functions;  // the kernel first
  std::set<std::string> variables;
  bool indirect = false;
};

// Functions whose address stands in a variable (tables of virtual functions): any indirect call may reach
// them.
std::set<std::string> stored_functions(const ptx::Module& module) {
  std::set<std::string> result;
  for (const Variable& variable : module.variables)
    for (const ptx::Relocation& relocation : variable.relocations)
      if (module.function_index.count(relocation.symbol) != 0) result.insert(relocation.symbol);
  return result;
}

Reach reach_of(const ptx::Module& module, int start) {
  Reach reach;
  std::set<int> seen = {start};
  std::vector<int> todo = {start};
  const auto visit = [&](const std::string& name) {
    const auto found = module.function_index.find(name);
    if (found != module.function_index.end() &&
        !module.functions[static_cast<std::size_t>(found->second)].is_declaration &&
        seen.insert(found->second).second)
      todo.push_back(found->second);
  };
  while (!todo.empty()) {
    const int index = todo.back();
    todo.pop_back();
    reach.functions.push_back(index);
    std::set<std::string> functions;
    for (const ptx::Instruction& instruction :
         module.functions[static_cast<std::size_t>(index)].instructions) {
      for (const Operand& operand : instruction.operands) names_in(operand, reach.variables, functions);
      const bool is_indirect = instruction.opcode == "call" && instruction.operands.size() > 1 &&
                               instruction.operands[1].kind == Operand::Kind::reg;
      if (is_indirect && !reach.indirect) {
        reach.indirect = true;
        for (const std::string& name : stored_functions(module)) visit(name);
      }
    }
    for (const std::string& name : functions) visit(name);
  }
  return reach;
}

// Shared memory of a kernel: the system's part, variables of the functions and of the module that it reaches,
// then what is sized at the launch.
std::unordered_map<std::string, Place> place_shared(const ptx::Module& module, const Reach& reach,
                                                    Kernel& kernel) {
  std::unordered_map<std::string, Place> places;
  std::uint64_t end = kReservedShared, dynamic_align = 16;
  std::vector<std::string> dynamic;
  const auto add = [&](const Variable& variable) {
    if (variable.space != ptx::Space::shared) return;
    if (variable.bytes == 0) {
      dynamic_align = std::max(dynamic_align, variable.align);
      dynamic.push_back(variable.name);
      return;
    }
    end = align_up(end, variable.align);
    places[variable.name] = {ptx::Space::shared, end, variable.bytes, false};
    end += variable.bytes;
  };
  for (const Variable& variable : module.variables)
    if (reach.variables.count(variable.name) != 0) add(variable);
  for (const int index : reach.functions)
    for (const Variable& variable : module.functions[static_cast<std::size_t>(index)].variables)
      add(variable);
  kernel.info.static_shared = end - kReservedShared;
  kernel.static_shared_end = align_up(end, dynamic.empty() ? 16 : dynamic_align);
  for (const std::string& name : dynamic)
    places[name] = {ptx::Space::shared, kernel.static_shared_end, 0, false};
  return places;
}

// Local memory that a call chain can need. Recursion and indirect calls get a fixed amount, as
// cudaLimitStackSize does.
std::uint64_t stack_of(const ptx::Module& module, const Kernel& kernel, const Program& program,
                       std::set<const Program*>& on_path) {
  constexpr std::uint64_t kUnknown = 16384;
  if (!on_path.insert(&program).second) return kUnknown;
  std::uint64_t deepest = 0;
  for (const ptx::Instruction& instruction : program.function->instructions) {
    if (instruction.opcode != "call") continue;
    const Operand& callee = instruction.operands.at(1);
    if (callee.kind != Operand::Kind::function) {
      deepest = std::max(deepest, kUnknown);
      continue;
    }
    const auto index = module.function_index.find(callee.name);
    const auto found =
        index == module.function_index.end() ? kernel.functions.end() : kernel.functions.find(index->second);
    if (found != kernel.functions.end())
      deepest = std::max(deepest, stack_of(module, kernel, *found->second, on_path));
  }
  on_path.erase(&program);
  return program.local_bytes + deepest;
}

void describe(const LoadedModule::Content& content, const Function& function, Kernel& kernel) {
  KernelInfo& info = kernel.info;
  info.name = function.name;
  info.demangled = demangle(function.name);
  for (const Variable& param : function.params) info.params.push_back({param.offset, param.bytes});
  info.param_bytes = function.param_bytes;
  std::copy(function.max_threads, function.max_threads + 3, info.max_threads);
  std::copy(function.required_threads, function.required_threads + 3, info.required_threads);
  info.target = content.module.target;
  for (const Variable& variable : content.module.variables)
    if (variable.space == ptx::Space::constant) info.constant_bytes += variable.bytes;
  if (function.cluster[0] * function.cluster[1] * function.cluster[2] > 1)
    info.unsupported = "thread block clusters are not supported";
}

}  // namespace

void decode_kernel(LoadedModule::Content& content, const Function& function, Kernel& kernel) {
  const ptx::Module& module = content.module;
  kernel.module = &module;
  describe(content, function, kernel);
  const int start = static_cast<int>(&function - module.functions.data());
  const Reach reach = reach_of(module, start);
  const auto shared = place_shared(module, reach, kernel);
  try {
    for (const int index : reach.functions) {
      Program* program = &kernel.program;
      if (index != start)
        program = kernel.functions.emplace(index, std::make_unique<Program>()).first->second.get();
      decode_function(module.functions[static_cast<std::size_t>(index)], content.places, shared, *program);
    }
  } catch (const ptx::Error& error) {
    kernel.info.unsupported = error.what();
    return;
  }
  std::set<const Program*> path;
  kernel.program.stack_bytes = stack_of(module, kernel, kernel.program, path);
  kernel.info.local_bytes = kernel.program.stack_bytes;
  // What ptxas will need is not known here; the most values alive at once, plus a few for addresses, comes
  // near.
  kernel.info.registers = std::clamp(allocate_registers(function).peak_words + 6, 16, 255);
}

namespace {

void place_variables(LoadedModule::Content& content) {
  DeviceMemory& memory = DeviceMemory::instance();
  for (const Variable& variable : content.module.variables) {
    Place place{variable.space, 0, variable.bytes, false};
    if (variable.space == ptx::Space::global || variable.space == ptx::Space::constant) {
      if (variable.bytes == 0) continue;
      const bool constant = variable.space == ptx::Space::constant;
      const MemoryKind kind = constant              ? MemoryKind::constant
                              : variable.is_managed ? MemoryKind::managed
                                                    : MemoryKind::variable;
      place.value = memory.allocate(variable.bytes, kind, variable.name);
      if (place.value == 0) throw ptx::Error(0, "no memory for the variable " + variable.name);
      content.variables[variable.name] = {variable.name, place.value, variable.bytes, constant};
    }
    content.places.variables[variable.name] = place;
  }
}

std::uint64_t relocated(const LoadedModule::Content& content, const ptx::Relocation& relocation) {
  const auto variable = content.places.variables.find(relocation.symbol);
  if (variable != content.places.variables.end()) {
    if (variable->second.space == ptx::Space::shared) return variable->second.value;
    return variable->second.value + static_cast<std::uint64_t>(relocation.addend);
  }
  const auto function = content.module.function_index.find(relocation.symbol);
  if (function == content.module.function_index.end())
    throw ptx::Error(0, "unknown name " + relocation.symbol + " in an initialiser");
  return kFunctionAddress + static_cast<std::uint64_t>(function->second) * 16;
}

// Variables with static storage are zero unless said otherwise.
void initialize_variables(LoadedModule::Content& content) {
  DeviceMemory& memory = DeviceMemory::instance();
  for (const Variable& variable : content.module.variables) {
    const auto info = content.variables.find(variable.name);
    if (info == content.variables.end()) continue;
    std::uint8_t* bytes = memory.host(info->second.address, variable.bytes);
    std::memset(bytes, 0, variable.bytes);
    if (!variable.image.empty())
      std::memcpy(bytes, variable.image.data(), std::min<std::size_t>(variable.image.size(), variable.bytes));
    for (const ptx::Relocation& relocation : variable.relocations) {
      const std::uint64_t value = relocated(content, relocation);
      std::memcpy(bytes + relocation.offset, &value, static_cast<std::size_t>(relocation.bytes));
    }
    memory.mark_initialized(info->second.address, variable.bytes);
  }
}

}  // namespace

LoadedModule::LoadedModule(std::string_view ptx) : content_(std::make_unique<Content>()) {
  content_->module = ptx::parse(ptx);
  content_->places.functions = {content_->module.function_index.begin(),
                                content_->module.function_index.end()};
  for (const Function& function : content_->module.functions)
    if (function.is_declaration) content_->places.declarations.insert(function.name);
  place_variables(*content_);
  initialize_variables(*content_);
  for (const Function& function : content_->module.functions) {
    if (!function.is_kernel || function.is_declaration) continue;
    content_->kernels.push_back(std::make_unique<Kernel>());
    decode_kernel(*content_, function, *content_->kernels.back());
    content_->kernel_by_name[function.name] = content_->kernels.back().get();
  }
}

LoadedModule::~LoadedModule() {
  for (const auto& [name, variable] : content_->variables) DeviceMemory::instance().release(variable.address);
}

const Kernel* LoadedModule::kernel(const std::string& name) const {
  const auto found = content_->kernel_by_name.find(name);
  return found == content_->kernel_by_name.end() ? nullptr : found->second;
}

const VariableInfo* LoadedModule::variable(const std::string& name) const {
  const auto found = content_->variables.find(name);
  return found == content_->variables.end() ? nullptr : &found->second;
}

std::vector<const Kernel*> LoadedModule::kernels() const {
  std::vector<const Kernel*> result;
  for (const auto& kernel : content_->kernels) result.push_back(kernel.get());
  return result;
}

const KernelInfo& info(const Kernel& kernel) { return kernel.info; }

}  // namespace emulator
